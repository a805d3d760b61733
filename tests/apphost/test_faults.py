"""What an app can do wrong, seen from the child: one clear error for that call, and the next one works."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from bakehouse.apphost import messages
from tests.apphost.child import Child, Children

MODELS = """
class In(BaseAppInput):
    n: int = 1
    tag: Literal["a", "b"] = "a"

class Out(BaseAppOutput):
    n: float
"""

LOADS = {
    "no app": ("x = 1", "no subclass of BaseApp"),
    "two apps": ("class A(BaseApp): ...\nclass B(BaseApp): ...", "several apps (A, B)"),
    "syntax": ("def (", "SyntaxError: invalid syntax (inference.py"),
    "missing module": ("import nothing_like_this", "No module named 'nothing_like_this'; is it in requirements.txt?"),
    "raises": ("raise RuntimeError('boom')", "RuntimeError: boom"),
    "exits": ("sys.exit(3)", "sys.exit(3)"),
    "no function": ("class A(BaseApp):\n    def helper(self, x): ...", "type-hinted input"),
    "bad hint": ("class A(BaseApp):\n    def run(self, x: 'Nowhere'): ...", "type hints of run() cannot be resolved"),
}


@pytest.mark.parametrize("name", LOADS)
def test_an_app_that_cannot_be_loaded_says_why(apps: Children, name: str) -> None:
    source, text = LOADS[name]
    child = apps.start(source)
    failed = child.next("failed")
    assert failed["stage"] == "import"
    assert text in failed["error"]["message"]
    assert "apphost" not in failed["error"]["traceback"], "the app's own frames only"
    assert child.to_end() == 1


def test_a_folder_without_an_app(apps: Children, tmp_path: Path) -> None:
    child = Child(tmp_path / "c")
    apps.made.append(child)
    child.hello(tmp_path)
    assert child.next("failed")["error"]["message"] == "the app has no inference.py"


SETUPS = {
    "raises": ("def setup(self):\n        raise ValueError('no model')", "app_error", "ValueError: no model"),
    "async raises": (
        "async def setup(self):\n        raise ValueError('no model')",
        "app_error",
        "ValueError: no model",
    ),
    "exits": ("def setup(self):\n        sys.exit('bye')", "exit", "the app called sys.exit('bye')"),
    "values": ("def setup(self, config: S): ...", "invalid_input", "/setup/size: "),
}


@pytest.mark.parametrize("name", SETUPS)
def test_setup_that_fails(apps: Children, name: str) -> None:
    source, code, text = SETUPS[name]
    models = "class S(BaseAppSetup):\n    size: int\n"
    app = f"{models}class App(BaseApp):\n    {source}\n    def run(self, i: BaseAppInput): ..."
    child = apps.start(app, setup={"size": "big"})
    failed = child.next("failed")
    assert (failed["stage"], failed["error"]["code"]) == ("setup", code)
    assert failed["error"]["message"].startswith(text)
    assert child.to_end() == 1


CALLS = {
    "raises": ("raise ValueError('wrong\\nsecond line')", "app_error", "ValueError: wrong"),
    "exits": ("sys.exit(3)", "exit", "the app called sys.exit(3)"),
    "keyboard": ("raise KeyboardInterrupt", "app_error", "KeyboardInterrupt"),
    "nan": ("return Out(n=float('nan'))", "invalid_output", "the output is not JSON: /n is nan"),
    "infinity": ("return {'n': float('inf')}", "invalid_output", "inf"),
    "not json": ("return {'n': 1.0, 'x': object()}", "invalid_output", "/x is a object"),
    "circular": ("a = []; a.append(a); return a", "invalid_output", "returned what JSON cannot say"),
    "nothing": ("return None", "no_output", "run() returned nothing"),
    "wrong model": ("return {'n': 'text'}", "invalid_output", "/output/n: "),
    "deep": ("def f(): f()\n        f()", "app_error", "RecursionError"),
    "unprintable": ("raise type('Bad', (Exception,), {'__str__': lambda s: 1/0})()", "app_error", "Bad: (its text"),
    "too long": ("return 'x' * (65 << 20)", "invalid_output", "the limit is 67108864"),
}


@pytest.mark.parametrize("colour", ["", "async "])
@pytest.mark.parametrize("name", CALLS)
def test_a_failing_call_is_one_clear_error_and_the_next_works(apps: Children, name: str, colour: str) -> None:
    body, code, text = CALLS[name]
    hint = "-> Out" if name in ("nothing", "wrong model") else ""
    child = apps.serve(
        MODELS
        + f"class App(BaseApp):\n    {colour}def run(self, input: In) {hint}:\n        {body}\n"
        + "    async def ok(self, input: In) -> Out:\n        return Out(n=input.n)\n"
    )
    child.call()
    error = child.final()["error"]
    assert error["code"] == code
    assert text in error["message"]
    assert "\n" not in error["message"]
    if code == "app_error":
        assert 'inference.py", line' in error["traceback"]
        assert "apphost" not in error["traceback"]
    child.call("ok", task_id="t2", n=5)
    assert child.final("t2")["output"] == {"n": 5.0}


def test_wrong_inputs_name_their_fields(apps: Children) -> None:
    child = apps.serve(MODELS + "class App(BaseApp):\n    async def run(self, input: In) -> Out: ...\n")
    child.call(n="many", tag="c")
    error = child.final()["error"]
    assert error["code"] == "invalid_input"
    assert [item["path"] for item in error["errors"]] == ["/input/n", "/input/tag"]
    assert error["message"].endswith("(and 1 more)")


def test_an_unknown_function(apps: Children) -> None:
    child = apps.serve(MODELS + "class App(BaseApp):\n    async def run(self, input: In) -> Out: ...\n")
    child.call("jump")
    error = child.final()["error"]
    assert (error["code"], error["message"]) == ("function_not_found", "there is no function 'jump'; the app has run")


@pytest.mark.parametrize(("body", "status"), [("os._exit(7)", 7), ("import ctypes; ctypes.string_at(0)", -11)])
def test_a_call_that_kills_its_process_is_seen_as_the_end(apps: Children, body: str, status: int) -> None:
    child = apps.serve(
        MODELS + f"class App(BaseApp):\n    def run(self, input: In):\n        print('last')\n        {body}\n"
    )
    child.call()
    assert child.to_end() == status
    assert child.lines() == ["last"], "what it said before is not lost"
    assert not [m for m in child.seen if m["t"] in ("result", "error")]
    if status < 0:
        assert b"Segmentation fault" in child.process.communicate()[1]


def test_an_exit_in_a_background_task_fails_the_call_and_ends_the_instance(apps: Children) -> None:
    child = apps.serve(
        MODELS
        + """
class App(BaseApp):
    async def run(self, input: In):
        self.task = asyncio.create_task(self._die())
        await asyncio.sleep(60)
    async def _die(self):
        sys.exit(4)
"""
    )
    child.call()
    assert child.final()["error"]["code"] == "exit"
    assert child.to_end() == 1


def test_a_hundred_megabytes_of_prints_are_fast_and_bounded(apps: Children) -> None:
    child = apps.serve(
        MODELS
        + """
import resource
class App(BaseApp):
    def run(self, input: In):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        line = "x" * 99
        for _ in range(1_000_000):
            print(line)
        return {"grown_kib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before}
"""
    )
    child.call()
    start, size, lines = time.monotonic(), 0, 0
    while not any(m["t"] == "result" for m in child.seen):
        lines += sum(len(m["lines"]) for m in child.seen if m["t"] == "log")
        child.seen.clear()
        assert child.pump()
    lines += sum(len(m["lines"]) for m in child.seen if m["t"] == "log")
    size = lines * 100
    assert size == 100_000_000
    assert time.monotonic() - start < 60
    final = next(m for m in child.seen if m["t"] == "result")
    assert final["output"]["grown_kib"] < 32 * 1024


def test_a_line_without_an_end_is_cut(apps: Children) -> None:
    child = apps.serve(
        MODELS + "class App(BaseApp):\n    def run(self, input: In):\n        print('y' * 100_000_000, end='')\n"
    )
    child.call()
    child.final()
    assert sum(map(len, child.lines())) == 100_000_000
    assert max(map(len, child.lines())) <= 64 * 1024


def test_garbage_from_the_server_ends_the_child_with_a_reason(apps: Children) -> None:
    child = apps.serve(MODELS + "class App(BaseApp):\n    def run(self, input: In): ...\n")
    child.socket.sendall(b"\0\0\0\x05hello")
    assert "not JSON" in child.next("failed")["error"]["message"]
    assert child.to_end() == 1


def test_another_protocol_is_refused(apps: Children) -> None:
    child = Child(apps.root / "p")
    apps.made.append(child)
    hello = messages.host_hello("serve", "/nowhere", child.dirs, {})
    hello["protocol"] = 2
    child.send(hello)
    failed = child.next("failed")
    assert (failed["stage"], failed["error"]["message"]) == ("protocol", "the server speaks protocol 2, the child 1")


def test_a_forked_child_of_the_app_cannot_garble_the_messages(apps: Children) -> None:
    child = apps.serve(
        MODELS
        + """
class App(BaseApp):
    def run(self, input: In):
        pid = os.fork()
        if pid == 0:
            print("from the fork", flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
        os.system("echo from the shell")
        return sorted(os.listdir("/proc/self/fd"), key=int)
"""
    )
    child.call()
    child.final()
    child.send(messages.stop())
    assert child.to_end() == 0
    assert child.lines() == []
    assert child.process.communicate()[0] == b"from the fork\nfrom the shell\n"


def test_nothing_of_the_server_is_inherited(apps: Children) -> None:
    leaked = os.open("/etc/hostname", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    child = apps.serve(
        MODELS
        + """
class App(BaseApp):
    def run(self, input: In):
        open_fds = []
        for name in os.listdir("/proc/self/fd"):
            try:
                open_fds.append(os.readlink(f"/proc/self/fd/{name}"))
            except OSError:
                pass
        return {"fds": open_fds, "env": sorted(os.environ), "importable": bool(sys.modules.get("bakehouse"))}
"""
    )
    os.close(leaked)
    child.call()
    seen = child.final()["output"]
    assert "/etc/hostname" not in seen["fds"]
    assert "BAKEHOUSE_FD" not in seen["env"]
    assert not seen["importable"]


@pytest.mark.parametrize("body", ["await asyncio.sleep(60)", "time.sleep(60)"])
def test_sigterm_ends_the_child(apps: Children, body: str) -> None:
    child = apps.serve(
        MODELS + f"class App(BaseApp):\n    async def run(self, input: In):\n        print('in')\n        {body}\n"
    )
    child.call()
    child.next("log")
    child.process.send_signal(signal.SIGTERM)
    assert child.to_end() == (0 if "asyncio" in body else 143)
    assert not [line for m in child.seen if m["t"] == "log" for line in m["lines"] if "KeyboardInterrupt" in line]


def test_the_child_ends_when_the_server_is_gone(apps: Children) -> None:
    child = apps.serve(
        MODELS + "class App(BaseApp):\n    def run(self, input: In):\n        print('in')\n        time.sleep(60)\n"
    )
    child.call()
    child.next("log")
    child.socket.close()
    assert child.process.wait(10) == 1
