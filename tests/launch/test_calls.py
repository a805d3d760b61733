"""What a call's events are: states, logs, progress, partial output, files, setup, concurrency."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bakehouse.core.executor import Finished, Logged, Progressed, Returned, Yielded
from bakehouse.core.task import TaskStatus as S
from tests.launch.support import ECHO, Bench, bench

SLEEPY = """
class App(BaseApp):
    def run(self, data: In) -> Out:
        time.sleep(data.number)
        return Out()
"""

NOISY = """
class App(BaseApp):
    def run(self, data: In) -> Out:
        print("by print")
        print("to stderr", file=sys.stderr)
        os.write(1, b"by descriptor\\n")
        subprocess.run(["/bin/sh", "-c", "echo by subprocess; printf unfinished >&2"])
        self.logger.info("by logger")
        self.report_progress(3, 4, "nearly")
        return Out(text="done")
"""

PARTS = """
class App(BaseApp):
    async def run(self, data: In):
        for word in ("a", "b", "c"):
            yield Out(text=word)
            await asyncio.sleep(0.05)
"""

FILES = """
class FileOut(BaseAppOutput):
    image: File
    note: str = ""

class App(BaseApp):
    async def run(self, data: In) -> FileOut:
        with open("/tmp/result.txt", "w") as file:
            file.write("bytes of " + data.text)
        return FileOut(image=File(path="/tmp/result.txt"), note="n")
"""

COUNTING = """
from infsh import BaseAppSetup

class Choice(BaseAppSetup):
    model: str = "small"

class App(BaseApp):
    async def setup(self, config: Choice):
        print("setting up", config.model)
        self.model, self.calls = config.model, 0

    async def run(self, data: In) -> Out:
        self.calls += 1
        return Out(text=f"{self.model} {self.calls} {os.getpid()} {self.context.task_id}")
"""

TOGETHER = """
here = []

class App(BaseApp):
    async def run(self, data: In) -> Out:
        here.append(1)
        while len(here) < 3:
            await asyncio.sleep(0.01)
        return Out(text=str(len(here)))
"""


async def test_a_cold_call_passes_every_state_and_a_warm_one_runs_at_once(one: Bench) -> None:
    app = one.app(ECHO)
    cold = one.call(app, text="one")
    assert (await cold.output())["text"] == "one"
    assert cold.statuses == [S.PREPARING, S.SERVING, S.SETTING_UP, S.RUNNING]
    warm = one.call(app, text="two")
    assert (await warm.output())["text"] == "two"
    assert warm.statuses == [S.RUNNING]
    assert one.executor.stats()["starts"] == 1


async def test_everything_a_call_prints_reaches_it_before_its_outcome(one: Bench) -> None:
    call = one.call(one.app(NOISY))
    await call.output()
    for line in ("by print", "to stderr", "by descriptor", "by subprocess", "unfinished", "by logger"):
        assert line in " | ".join(call.lines), call.lines
    streams = {line: event.stream for event in call.events if isinstance(event, Logged) for line in event.lines}
    assert streams["by descriptor"] == "stdout"
    assert streams["unfinished"] == "stderr"
    assert [event for event in call.events if isinstance(event, Progressed)][-1] == Progressed(3, 4, "nearly")
    assert isinstance(call.events[-1], Finished)


async def test_yields_are_partial_outputs_and_the_last_is_the_output(one: Bench) -> None:
    call = one.call(one.app(PARTS))
    assert (await call.output())["text"] == "c"
    parts = [event.output["text"] for event in call.events if isinstance(event, Yielded)]
    assert parts == sorted(parts)
    assert parts
    assert set(parts) <= {"a", "b", "c"}


async def test_an_output_file_is_moved_out_of_the_apps_reach(one: Bench) -> None:
    call = one.call(one.app(FILES), text="x")
    outcome = await call.end()
    assert isinstance(outcome, Finished)
    (file,) = outcome.files
    assert file.pointer == "/image"
    assert outcome.output["image"] is None
    assert file.path.read_text() == "bytes of x"
    assert file.path.parent == one.home / "outbox"
    assert (file.filename, file.size) == ("result.txt", 10)
    assert not Path("/tmp/result.txt").exists(), "the app's /tmp is its own"


async def test_setup_runs_once_per_setup_and_other_values_get_their_own_instance(one: Bench) -> None:
    app = one.app(COUNTING)
    first = one.call(app, setup={"model": "small"})
    text = (await first.output())["text"].split()
    assert text[:2] == ["small", "1"]
    assert text[3] == first.task.id
    assert "setting up small" in first.lines
    second = one.call(app, setup={"model": "small"})
    assert (await second.output())["text"].split()[:2] == ["small", "2"]
    assert "setting up small" not in second.lines
    other = one.call(app, setup={"model": "large"})
    assert (await other.output())["text"].split()[:2] == ["large", "1"]
    assert one.executor.stats()["starts"] == 2


async def test_an_instance_runs_one_call_at_a_time(one: Bench) -> None:
    app = one.app(
        "class App(BaseApp):\n    def run(self, data: In) -> Out:\n        time.sleep(0.1)\n        return Out()"
    )
    await one.call(app).output()
    calls = [one.call(app) for _ in range(2)]
    await asyncio.gather(*(call.output() for call in calls))
    assert one.executor.stats()["starts"] == 2, "a slow call is not waited for while there is room for an instance"


async def test_concurrency_lets_calls_of_one_instance_run_together(one: Bench) -> None:
    app = one.app(TOGETHER, concurrency=3)
    calls = [one.call(app) for _ in range(3)]
    # The three meet in one process, or they would wait for ever.
    assert [(await call.output())["text"] for call in calls] == ["3", "3", "3"]
    assert one.executor.stats()["starts"] == 1


async def test_short_calls_wait_behind_a_busy_instance_and_come_in_order(one: Bench) -> None:
    app = one.app(ECHO)
    await one.warm(app)
    room = one.executor.capacity(one.lane(app))
    assert room.ready >= 1
    assert room.prefetch == 16
    ended: list[str] = []
    calls = [one.call(app, text=str(n)) for n in range(17)]
    assert [call.statuses for call in calls[:2]] == [[S.RUNNING], []], "what is held does not count as running"
    for call in calls:
        ended.append((await call.output())["text"])
    assert ended == [str(n) for n in range(17)]
    assert one.executor.stats()["starts"] == 1


async def test_calls_behind_one_that_turns_out_long_are_given_back(one: Bench) -> None:
    app = one.app(SLEEPY)
    await one.warm(app)
    long, held = one.call(app, number=1.5), [one.call(app) for _ in range(3)]
    assert [call.statuses for call in (long, *held)] == [[S.RUNNING], [], [], []]
    for call in held:
        assert isinstance(await call.end(), Returned)
    assert long.outcome is None
    again = one.call(app)
    await again.output()
    assert long.outcome is None, "another instance ran it"
    await long.output()


async def test_an_inbox_item_reaches_the_running_call_only(one: Bench) -> None:
    app = one.app(ECHO)
    call = one.call(app)
    assert one.executor.send(call.task.id, {"hello": 1}) is False, "it has not begun"
    await call.output()
    assert one.executor.send(call.task.id, {"hello": 1}) is False, "it has ended"


async def test_an_idle_instance_makes_room_for_another_lane_and_is_ended_by_age(tmp_path: Path) -> None:
    async with bench(tmp_path, max_instances=1, idle_timeout=0.3) as small:
        first, second = small.app(ECHO), small.app(ECHO)
        await small.call(first, text="1").output()
        await small.call(second, text="2").output()
        assert small.executor.stats()["starts"] == 2
        assert small.executor.stats()["evictions"] == 1
        empty = asyncio.Event()
        small.executor.on_capacity(lambda: empty.set() if not small.executor.instances else None)
        await asyncio.wait_for(empty.wait(), 20)
        assert small.executor.stats()["evictions"] == 2


async def test_calls_beyond_the_machines_room_wait_in_line(tmp_path: Path) -> None:
    async with bench(tmp_path, max_instances=1) as small:
        slow = (
            "class App(BaseApp):\n    def run(self, data: In) -> Out:\n        time.sleep(0.05)\n        return Out()"
        )
        apps = [small.app(slow), small.app(slow)]
        calls = [small.call(apps[n % 2]) for n in range(4)]
        assert [small.executor.capacity(small.lane(app)).ready for app in apps] == [0, 0]
        await asyncio.gather(*(call.output() for call in calls))
