"""Sessions, probes, and the executor's own start and end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bakehouse.core.errors import RequirementsNotMet
from bakehouse.core.executor import Finished, Lost, Returned
from bakehouse.core.task import TaskStatus as S
from bakehouse.launch import LaunchError
from tests.launch.support import ECHO, Bench, bench

COUNTER = """
class App(BaseApp):
    def setup(self):
        self.__dict__["seen"] = []

    def run(self, data: In) -> Out:
        self.__dict__["seen"].append(data.text)
        if data.text == "die": os._exit(1)
        while data.text == "hang": time.sleep(0.01)
        return Out(text=" ".join(self.__dict__["seen"]))

    def unload(self):
        print("unloaded", flush=True)
"""


async def test_a_session_keeps_its_instance_to_itself(one: Bench) -> None:
    app = one.app(COUNTER)
    await one.call(app, text="a", session="ses_1").output()
    assert (await one.call(app, text="b", session="ses_1").output())["text"] == "a b"
    assert (await one.call(app, text="c", session="ses_2").output())["text"] == "c"
    assert (await one.call(app, text="d").output())["text"] == "d"
    assert (await one.call(app, text="e", session="ses_1").output())["text"] == "a b e"
    assert one.executor.stats()["starts"] == 3


async def test_the_end_of_a_session_ends_its_instance_after_the_running_call(one: Bench) -> None:
    app = one.app(COUNTER)
    call = one.call(app, text="hang", session="ses_1")
    await call.running()
    one.executor.end_session("ses_1")
    assert call.outcome is None
    gone = asyncio.Event()
    one.executor.on_capacity(lambda: gone.set() if not one.executor.instances else None)
    one.executor.cancel(call.task.id, grace=0)
    await call.end()
    await asyncio.wait_for(gone.wait(), 10)
    one.executor.end_session("ses_1")
    assert (await one.call(app, text="x", session="ses_1").output())["text"] == "x"


async def test_an_idle_sessions_end_lets_the_app_unload(one: Bench) -> None:
    call = one.call(one.app(COUNTER), text="a", session="ses_1")
    await call.output()
    gone = asyncio.Event()
    one.executor.on_capacity(lambda: gone.set() if not one.executor.instances else None)
    one.executor.end_session("ses_1")
    await asyncio.wait_for(gone.wait(), 10)
    assert one.lost_sessions == []
    assert "unloaded" in one.instance_lines


async def test_a_lost_instance_is_a_lost_session(one: Bench) -> None:
    outcome = await one.call(one.app(COUNTER), text="die", session="ses_1").end()
    assert isinstance(outcome, Lost)
    ((session, reason),) = one.lost_sessions
    assert session == "ses_1"
    assert "exit status 1" in reason


async def test_the_end_of_the_executor_hands_calls_back(tmp_path: Path) -> None:
    async with bench(tmp_path, max_instances=1) as made:
        app = made.app(COUNTER)
        await made.warm(app)
        running, held = made.call(app, text="hang"), made.call(app)
        waiting = made.call(made.app(ECHO))
        await running.running()
        assert held.statuses == []
        await made.executor.shut_down(0.0)
        assert isinstance(running.outcome, Lost)
        assert isinstance(held.outcome, Returned)
        assert isinstance(waiting.outcome, Returned)
        late = made.call(app)
        assert isinstance(late.outcome, Returned)


async def test_the_end_of_the_executor_waits_for_calls_within_its_grace(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        call = made.call(made.app(SLOW))
        await call.running()
        await made.executor.shut_down(20.0)
        assert isinstance(call.outcome, Finished)
        assert call.outcome.output["text"] == "done"


async def test_an_environment_that_cannot_be_had_fails_the_call(one: Bench) -> None:
    async def refuse(*_: Any) -> dict[str, str]:
        raise RequirementsNotMet("set the secret TOKEN: bakehouse secrets set TOKEN")

    object.__setattr__(one.executor.hooks, "environ", refuse)
    outcome = await one.call(one.app(ECHO)).end()
    assert isinstance(outcome, Finished)
    assert outcome.failure is not None
    assert outcome.failure.code == "requirements_not_met"
    assert "TOKEN" in outcome.failure.message


SLOW = """
class App(BaseApp):
    def run(self, data: In) -> Out:
        time.sleep(0.3)
        return Out(text="done")
"""

SERVER = """
import asyncio, sys
from pathlib import Path
from tests.launch.support import Bench

async def main():
    bench = Bench(Path(sys.argv[1]))
    await bench.executor.start_up()
    calls = [bench.call(bench.app(sys.argv[2]), text="hang") for _ in range(2)]
    for call in calls:
        await call.running()
    (bench.home / "instances" / "half-made").mkdir()
    print("running", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_instances_die_with_the_server_and_the_next_one_cleans_up(tmp_path: Path, signum: int) -> None:
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(tmp_path), COUNTER],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert server.stdout is not None
    with server.stdout:
        assert server.stdout.readline() == "running\n"
        before = asyncio.run(_leftovers(tmp_path))
        assert any(line.startswith("process") for line in before)
        os.kill(server.pid, signum)
        server.wait()
    # PDEATHSIG travels down process by process; the next server's start is what must find nothing.
    asyncio.run(_restart(tmp_path))


async def _leftovers(root: Path) -> list[str]:
    return Bench(root).leftovers()


async def _restart(root: Path) -> None:
    made = Bench(root)
    await made.executor.start_up()
    assert made.leftovers() == []
    await made.executor.shut_down(0.0)


# ---- probes -------------------------------------------------------------------------------------------------


async def probe(one: Bench, source: str, timeout: float = 30) -> tuple[dict[str, Any], list[str]]:
    lines: list[str] = []
    app_dir = one.home / "versions" / one.app(source).id / "app"
    described = await one.executor.describe(
        app_dir=app_dir,
        python=Path(sys.executable),
        environ={},
        timeout=timeout,
        on_log=lambda stream, line: lines.append(line),
    )
    return described, lines


async def test_a_probe_tells_functions_and_schemas(one: Bench) -> None:
    described, lines = await probe(one, "print('loading')\n" + ECHO)
    (function,) = described["functions"]
    assert function["name"] == "run"
    assert function["input_schema"]["properties"]["text"]["type"] == "string"
    assert described["class_name"] == "App"
    assert "loading" in lines


@pytest.mark.parametrize(
    ("source", "stage", "word"),
    [
        ("import nothing_like_this", "import", "nothing_like_this"),
        ("import os; os._exit(4)", "import", "exit status 4"),
        ("while True: pass", "timeout", "2 s"),
    ],
)
async def test_a_probe_that_fails_says_where_and_leaves_nothing(one: Bench, source: str, stage: str, word: str) -> None:
    with pytest.raises(LaunchError) as caught:
        await probe(one, source, timeout=2)
    assert caught.value.stage == stage
    assert word in str(caught.value)
    assert one.leftovers() == []


async def test_calls_of_a_lane_that_is_starting_see_its_states(one: Bench) -> None:
    app = one.app(ECHO)
    first = one.call(app)
    await first.until(lambda: S.SETTING_UP in first.statuses)
    await first.output()
