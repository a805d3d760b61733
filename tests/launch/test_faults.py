"""Whatever an app does ends in one clear outcome for its call, and leaves nothing behind (the fixture checks)."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from bakehouse.core.app import Limits
from bakehouse.core.executor import Failure, Finished, Logged, Lost, Returned
from bakehouse.core.task import TaskStatus as S
from bakehouse.launch.watch import tree
from tests.launch.support import ECHO, Bench, Watched, bench
from tests.support.waiting import wait_until


def body(*lines: str, kind: str = "def") -> str:
    """An app whose ``run`` is *lines*."""
    inner = "\n".join(f"        {line}" for line in lines)
    return f"class App(BaseApp):\n    {kind} run(self, data: In) -> Out:\n{inner}\n        return Out()\n"


async def failure_of(call: Watched) -> Failure:
    outcome = await call.end()
    assert isinstance(outcome, Finished), outcome
    assert outcome.failure is not None, outcome
    return outcome.failure


async def still_serves(bench: Bench) -> None:
    assert (await bench.call(bench.app(ECHO), text="fine").output())["text"] == "fine"


def app_pids(bench: Bench) -> list[int]:
    """The processes of the only instance, the shim's first."""
    (instance,) = bench.executor.instances.values()
    assert instance.pid is not None
    return tree(instance.pid)


BAD_SETUP = """
class App(BaseApp):
    def setup(self): raise RuntimeError("no weights")
    def run(self, data: In) -> Out: ...
"""
STUCK_SETUP = """
class App(BaseApp):
    def setup(self):
        print("stuck")
        while True: time.sleep(0.01)
    def run(self, data: In) -> Out: ...
"""


@pytest.mark.parametrize(
    ("source", "code", "word"),
    [
        ("import nothing_like_this", "import_failed", "nothing_like_this"),
        ("def broken(:", "import_failed", "syntax"),
        ("x = 1", "import_failed", "BaseApp"),
        (BAD_SETUP, "setup_failed", "no weights"),
        (body("raise ValueError('my fault')"), "app_error", "my fault"),
        (body("sys.exit(3)"), "exit", "3"),
        (body("return {'text': float('nan')}"), "invalid_output", ""),
        (body("return object()"), "invalid_output", ""),
    ],
)  # fmt: skip
async def test_what_an_app_raises_is_the_calls_failure(one: Bench, source: str, code: str, word: str) -> None:
    failure = await failure_of(one.call(one.app(source)))
    assert failure.code == code, failure
    assert word.lower() in (failure.message + failure.traceback).lower()
    assert "\n" not in failure.message
    await still_serves(one)


@pytest.mark.parametrize(
    ("source", "word"),
    [
        (body("os._exit(3)"), "exit status 3"),
        (body("os._exit(0)"), "exit status 0"),
        (body("ctypes.string_at(1)"), "SIGSEGV"),
        (body("os.abort()"), "SIGABRT"),
        (body("os.kill(os.getpid(), signal.SIGKILL)"), "SIGKILL"),
    ],
)
async def test_an_ended_process_is_a_lost_attempt_with_its_reason(one: Bench, source: str, word: str) -> None:
    outcome = await one.call(one.app(source)).end()
    assert isinstance(outcome, Lost), outcome
    assert word in outcome.reason
    assert outcome.retry
    await still_serves(one)


async def test_an_end_during_setup_is_a_lost_attempt_for_those_who_wait(one: Bench) -> None:
    source = "class App(BaseApp):\n    def setup(self): os._exit(9)\n    def run(self, data: In) -> Out: ..."
    outcome = await one.call(one.app(source)).end()
    assert isinstance(outcome, Lost)
    assert "before it was ready" in outcome.reason


async def test_kill_9_loses_the_running_call_and_returns_the_held_ones(one: Bench) -> None:
    app = one.app(body("print('in', data.text)", "while data.text == 'hang': time.sleep(0.01)"))
    await one.warm(app)
    running = one.call(app, text="hang")
    held = [one.call(app) for _ in range(3)]
    await running.printed("in hang")
    assert all(S.RUNNING not in call.statuses for call in held)
    os.kill(app_pids(one)[-1], signal.SIGKILL)
    outcome = await running.end()
    assert isinstance(outcome, Lost)
    assert outcome.retry
    assert "SIGKILL" in outcome.reason
    for call in held:
        assert isinstance(await call.end(), Returned)
    assert one.executor.stats()["losses"] == 1
    await still_serves(one)


def alive(pid: int) -> bool:
    """Whether *pid* runs: an ended process that its parent has not asked about does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


FORKS = body(
    "subprocess.Popen(['/bin/sleep', '1000'])",
    "subprocess.Popen(['/bin/sleep', '1000'], start_new_session=True)",
    "subprocess.Popen(['/usr/bin/env', '-i', '/bin/sh', '-c', '(trap \"\" TERM; sleep 1001) & exit 0'])",
    "if os.fork() == 0:",
    "    os.setsid()",
    "    if os.fork() == 0: time.sleep(1000)",
    "    os._exit(0)",
    "print('forked')",
    "while data.text == 'hang': time.sleep(0.01)",
)


@pytest.mark.parametrize(
    ("how", "isolation"),
    # Without namespaces nobody is left to find everything after the shim was killed from outside.
    [("cancelled", "auto"), ("stopped", "auto"), ("shim killed", "auto"), ("cancelled", "off"), ("stopped", "off")],
)
async def test_nothing_that_an_app_forked_outlives_its_instance(tmp_path: Path, how: str, isolation: str) -> None:
    async with bench(tmp_path, isolation=isolation) as made:
        call = made.call(made.app(FORKS), text="" if how == "stopped" else "hang")
        await call.printed("forked")
        family = app_pids(made)
        assert len(family) >= 4
        if how == "shim killed":
            os.kill(family[0], signal.SIGKILL)
        elif how == "cancelled":
            made.executor.cancel(call.task.id, grace=0)
        await call.end()
        await made.executor.shut_down(0.0)
        # Where somebody else killed the shim, the kernel ends the rest in its own time.
        await asyncio.to_thread(wait_until, lambda: not any(alive(pid) for pid in family), "the family to end", 10)


async def test_a_flood_of_prints_neither_blocks_the_loop_nor_gets_lost(one: Bench) -> None:
    line = "x" * 999
    app = one.app(body(f"for n in range(100_000): print('{line}')", "print('last')"))
    call, turns = one.call(app), 0
    await call.running()
    while call.outcome is None:
        await asyncio.sleep(0)
        turns += 1
    assert sum(len(event.lines) for event in call.events if isinstance(event, Logged)) >= 100_001
    assert call.lines[-1] == "last"
    assert turns > 200, "other work must get its turn between the reads"


async def test_a_flood_to_the_descriptors_ends_with_the_call(one: Bench) -> None:
    app = one.app(
        body("block = b'y' * 65536", "for n in range(1600): os.write(1, block)", "os.write(2, b'\\xff\\xfe\\n')")
    )
    call = one.call(app)
    await call.end(timeout=60)
    assert sum(len(line) for line in call.lines) >= 100 * 1024 * 1024
    assert "\ufffd\ufffd" in call.lines


SPOIL = """
import socket, struct

def spoil(data):
    for fd in range(3, 64):
        try:
            socket.socket(fileno=os.dup(fd)).sendall(data)
        except OSError:
            pass
"""


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff" * 64,
        b"\x00\x00\x00\x02{}",
        b"\x00\x00\x00\x0bnot json...",
        b'\x00\x00\x00\x0b{"t":"what"}',
        b'\x00\x00\x00\x18{"t":"started","id":1234}',
    ],
)
async def test_garbage_on_the_message_socket_ends_the_instance(one: Bench, garbage: bytes) -> None:
    call = one.call(one.app(SPOIL + body(f"spoil({garbage!r})", "while True: time.sleep(0.01)")))
    outcome = await call.end()
    assert isinstance(outcome, Lost), outcome
    assert (outcome.code, outcome.retry) == ("protocol_error", False)
    await still_serves(one)


async def test_a_closed_message_socket_ends_the_instance(one: Bench) -> None:
    call = one.call(one.app(body("os.closerange(3, 64)", "while True: time.sleep(0.01)")))
    outcome = await call.end()
    assert isinstance(outcome, Lost)
    await still_serves(one)


NEVER = {
    "sync": body("print('begun')", "while True: time.sleep(0.01)"),
    "busy": body("print('begun')", "while True: pass"),
    "deaf": body("print('begun')", "while True:", "    try: time.sleep(0.01)", "    except BaseException: pass"),
    "ignores SIGTERM": "import signal as s\n"
    + body("import ctypes", "ctypes.CDLL(None).signal(15, 1)", "print('begun')", "while True: time.sleep(0.01)"),
    "async": body("print('begun')", "await asyncio.Event().wait()", kind="async def"),
}


@pytest.mark.parametrize("how", NEVER)
async def test_a_call_that_never_returns_can_be_cancelled(one: Bench, how: str) -> None:
    call = one.call(one.app(NEVER[how]))
    await call.printed("begun")
    one.executor.cancel(call.task.id, grace=0.3)
    one.executor.cancel(call.task.id, grace=0.3)
    assert await call.end(timeout=10) == Finished(cancelled=True)
    await still_serves(one)


async def test_a_call_that_heeds_a_cancel_keeps_its_instance(one: Bench) -> None:
    source = """
    class App(BaseApp):
        async def on_cancel(self): print("told")
        async def run(self, data: In) -> Out:
            print("begun")
            if data.text == "wait": await asyncio.Event().wait()
            return Out()
    """
    app = one.app(source)
    call = one.call(app, text="wait")
    await call.printed("begun")
    one.executor.cancel(call.task.id, grace=20)
    assert await call.end(timeout=5) == Finished(cancelled=True)
    assert "told" in call.lines
    await one.call(app).output()
    assert one.executor.stats()["starts"] == 1


async def test_held_and_waiting_calls_are_cancelled_at_once(one: Bench) -> None:
    app = one.app(body("while data.text == 'hang': time.sleep(0.01)"))
    starting = one.call(app)
    one.executor.cancel(starting.task.id)
    assert starting.outcome == Finished(cancelled=True)
    await one.warm(app)
    running, held = one.call(app, text="hang"), one.call(app)
    await running.running()
    one.executor.cancel(held.task.id)
    assert held.outcome == Finished(cancelled=True)
    one.executor.cancel(running.task.id, grace=0.1)
    await running.end()
    await still_serves(one)


async def test_a_start_that_nobody_waits_for_any_more_is_given_up(one: Bench) -> None:
    call = one.call(one.app(STUCK_SETUP))
    await call.printed("stuck")
    gone = asyncio.Event()
    one.executor.on_capacity(lambda: gone.set() if not one.executor.instances else None)
    one.executor.cancel(call.task.id, grace=0.1)
    assert call.outcome == Finished(cancelled=True)
    await asyncio.wait_for(gone.wait(), 10)


async def test_a_setup_that_takes_too_long_fails_its_calls(tmp_path: Path) -> None:
    async with bench(tmp_path, setup_timeout=0.5) as made:
        failure = await failure_of(made.call(made.app(STUCK_SETUP)))
        assert failure.code == "setup_timeout"


HOGS: dict[str, tuple[str, Limits, str]] = {
    "itself": (body("kept = []", "while True:", "    kept.append(bytearray(16 << 20))", "    time.sleep(0.01)"),
               Limits(memory=200 << 20), "out_of_memory"),
    "a child": (body("subprocess.run([sys.executable, '-c', 'import time; x = bytearray(400 << 20); time.sleep(99)'])"),
                Limits(memory=200 << 20), "out_of_memory"),
    "processes": (body("for n in range(60): subprocess.Popen(['/bin/sleep', '1000'])", "time.sleep(1000)"),
                  Limits(processes=20), "too_many_processes"),
}  # fmt: skip


@pytest.mark.parametrize("who", HOGS)
async def test_an_instance_over_its_limit_is_killed_and_not_tried_again(one: Bench, who: str) -> None:
    source, limits, code = HOGS[who]
    outcome = await one.call(one.app(source, limits=limits)).end()
    assert isinstance(outcome, Lost), outcome
    assert (outcome.code, outcome.retry) == (code, False)
    assert "limit" in outcome.reason
    await still_serves(one)


@pytest.mark.parametrize(
    ("limits", "lines", "kind"),
    [
        (Limits(file_size=1 << 20), ["open('big', 'wb').write(bytes(2 << 20))"], "File too large"),
        (Limits(cpu_time=1), ["while True: pass"], "SIGXCPU"),
    ],
)
async def test_the_kernel_enforces_file_size_and_cpu_time(
    one: Bench, limits: Limits, lines: list[str], kind: str
) -> None:
    outcome: Any = await one.call(one.app(body(*lines), limits=limits)).end()
    told = outcome.reason if isinstance(outcome, Lost) else outcome.failure.message
    assert kind in told or (kind == "SIGXCPU" and "SIGKILL" in told)
    await still_serves(one)


@pytest.mark.parametrize(
    ("trick", "name", "pointer"),
    [
        ("os.symlink('/etc/hostname', target)", "trap", "/text"),
        ("os.symlink('../../../bakehouse.db', target)", "trap", "/text"),
        ("os.mkdir(target)", "trap", "/text"),
        ("os.mkfifo(target)", "trap", "/text"),
        ("open(target, 'w')", "trap", "/elsewhere"),
        ("open(target, 'w')", "trap", "text"),
        ("open(target, 'w')", "../work/../../../bakehouse.db", "/text"),
        ("open(target, 'w')", "absent", "/text"),
    ],
)
async def test_an_output_file_that_the_app_made_up_is_refused(one: Bench, trick: str, name: str, pointer: str) -> None:
    """The app speaks for the host: it forges the message that names an output file."""
    source = SPOIL + body(
        "target = os.path.join(os.getcwd(), '..', 'outbox', 'trap')",
        trick,
        f"entry = {{'pointer': {pointer!r}, 'name': {name!r}, 'filename': 'f', 'content_type': 'x/y', 'size': 1}}",
        "message = {'t': 'result', 'id': self.context.task_id + '.1', 'output': {'text': None}, 'files': [entry]}",
        "data = json.dumps(message).encode()",
        "spoil(struct.pack('>I', len(data)) + data)",
        "time.sleep(1000)",
    )
    failure = await failure_of(one.call(one.app(source)))
    assert failure.code == "output_file"
    assert list((one.home / "outbox").iterdir()) == []


async def test_what_an_idle_instance_prints_is_bounded(one: Bench) -> None:
    source = """
    class App(BaseApp):
        def run(self, data: In) -> Out:
            subprocess.Popen(["/bin/sh", "-c", "while ! test -e go; do :; done; yes | head -c 3000000; touch done"])
            return Out()
    """
    await one.call(one.app(source)).output()
    (instance,) = one.executor.instances.values()
    (one.home / "instances" / instance.id / "work" / "go").touch()
    await asyncio.wait_for(one.instance_said("it prints too much: lines are dropped"), 30)
    await one.executor.shut_down(0.0)
    assert sum(map(len, one.instance_lines)) < 1_000_000
