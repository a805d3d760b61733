"""Calls of every colour, their outputs, progress and cancelling, in a real child."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bakehouse.apphost import messages
from tests.apphost.child import Children

MODELS = """
class In(BaseAppInput):
    n: int = 1

class Out(BaseAppOutput):
    n: int
"""


@pytest.mark.parametrize("colour", ["", "async "])
def test_functions_of_both_colours_answer(apps: Children, colour: str) -> None:
    child = apps.serve(
        MODELS
        + f"class App(BaseApp):\n    {colour}def run(self, input: In) -> Out:\n        return Out(n=input.n + 1)\n"
    )
    child.call(n=41)
    final = child.final()
    assert final["output"] == {"n": 42}
    assert [m["t"] for m in child.seen] == ["hello", "ready", "started", "result"]


@pytest.mark.parametrize("colour", ["", "async "])
def test_yields_are_partials_and_the_last_one_is_the_result(apps: Children, colour: str) -> None:
    child = apps.serve(
        MODELS
        + f"class App(BaseApp):\n    {colour}def run(self, input: In) -> Iterator[Out]:\n"
        + "        for n in range(input.n):\n            yield Out(n=n)\n"
    )
    child.call(n=1000)
    assert child.final()["output"] == {"n": 999}
    partials = [m["output"]["n"] for m in child.seen if m["t"] == "partial"]
    assert partials == sorted(partials)
    assert partials[0] == 0
    assert partials[-1] == 999, "the newest partial goes out before the result"
    assert len(partials) < 1000
    child.call(task_id="t2", n=0)
    assert child.final("t2")["error"]["code"] == "no_output"


def test_setup_runs_once_and_unload_at_stop(apps: Children) -> None:
    child = apps.serve(
        MODELS
        + """
class AppSetup(BaseAppSetup):
    start: int = 5

class App(BaseApp):
    def setup(self, config: AppSetup):
        self.total = config.start
        print("set up")
    def run(self, input: In) -> Out:
        self.total += input.n
        return Out(n=self.total)
    async def unload(self):
        print("unloaded")
""",
        setup={"start": 10},
    )
    child.call(n=1)
    child.call(task_id="t2", n=2)
    assert (child.final()["output"]["n"], child.final("t2")["output"]["n"]) == (11, 13)
    child.send(messages.stop())
    assert child.to_end() == 0
    assert child.lines(None) == ["set up", "unloaded"]


def test_stop_lets_the_running_call_finish_and_drops_the_held_one(apps: Children) -> None:
    child = apps.serve(
        MODELS
        + """
class App(BaseApp):
    async def run(self, input: In) -> Out:
        item = await asyncio.to_thread(self.context.inbox.get)
        return Out(n=item["n"])
"""
    )
    child.call()
    child.next("started")
    child.call(task_id="held")
    child.send(messages.stop(), messages.inbox("t1", {"n": 7}))
    assert child.final()["output"] == {"n": 7}
    assert child.to_end() == 0
    assert not [m for m in child.seen if m.get("id") == "held"]


def test_context_logger_progress_and_temp_dir(apps: Children) -> None:
    child = apps.serve(
        """
class In(BaseAppInput):
    pass

class App(BaseApp):
    async def run(self, input: In, metadata: Metadata):
        self.logger.info("hello from %s", self.context.task_id)
        for step in range(500):
            self.report_progress(step, 500)
        self.report_progress(500, 500, "done")
        before = os.listdir(self.temp_dir)
        (self.temp_dir / "scratch").write_text("x")
        c = self.context
        return {"before": before, "ids": [c.task_id, c.app_id, c.owner_id, c.attempt], "team": metadata.team_id,
                "user": c.metadata.user_id, "extra": c.metadata.colour}
"""
    )
    context = {"task_id": "t1", "owner_id": "own_9", "user_id": "usr_1", "colour": "red"}
    child.call(context=context)
    expected = {"before": [], "ids": ["t1", "app_1", "own_9", 1], "team": "own_9", "user": "usr_1", "extra": "red"}
    assert child.final()["output"] == expected
    progress = [m for m in child.seen if m["t"] == "progress"]
    assert (progress[-1]["current"], progress[-1]["message"]) == (500, "done")
    assert len(progress) < 400
    assert {"t": "log", "id": "t1", "stream": "log", "lines": ["hello from t1"], "level": "info"} in child.seen
    child.call(task_id="t2", context=context)
    assert child.final("t2")["output"]["before"] == [], "the temp directory is emptied between calls"


def test_output_is_ordered_and_attributed(apps: Children) -> None:
    child = apps.serve(
        """
import logging
class In(BaseAppInput):
    pass

class App(BaseApp):
    def run(self, input: In):
        print("one"); print("two", file=sys.stderr); logging.warning("three")
        thread = threading.Thread(target=print, args=("four",)); thread.start(); thread.join()
        sys.stdout.buffer.write(b"fi\\xff"); print("ve")
        print("10%\\r20%\\r30%")
        print("no newline", end="")
"""
    )
    child.call()
    assert child.final()["output"] is None
    assert child.lines() == ["one", "two", "three", "four", "fi\ufffdve", "30%", "no newline"]
    assert child.lines(stream="stderr") == ["two"]


FILES = """
class In(BaseAppInput):
    path: str

class Out(BaseAppOutput):
    image: File
    more: List[File] = []

class App(BaseApp):
    async def run(self, input: In) -> Out:
        return Out(image=File(path=input.path), more=[File(path=input.path, filename="b.txt")])
    async def plain(self, input: In):
        return {"a/b": [{"path": input.path}], "data": {"path": "/nowhere/at/all"}}
"""


def test_output_files_are_copied_to_the_outbox(apps: Children, tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    source.write_bytes(b"12345")
    child = apps.serve(FILES)
    child.call(path=str(source))
    final = child.final()
    assert final["output"] == {"image": None, "more": [None]}
    facts = [(f["pointer"], f["filename"], f["content_type"], f["size"]) for f in final["files"]]
    assert facts == [("/image", "a.png", "image/png", 5), ("/more/0", "b.txt", "text/plain", 5)]
    assert (Path(child.dirs["outbox"]) / final["files"][0]["name"]).read_bytes() == b"12345"
    child.call("plain", task_id="t2", path=str(source))
    final = child.final("t2")
    assert [f["pointer"] for f in final["files"]] == ["/a~1b/0"]
    assert final["output"] == {"a/b": [None], "data": {"path": "/nowhere/at/all"}}
    child.call(task_id="t3", path="/nowhere/x.png")
    error = child.final("t3")["error"]
    assert error["code"] == "output_file"
    assert "/nowhere/x.png" in error["message"]


def test_an_input_file_is_fetched_before_the_function_runs(apps: Children) -> None:
    child = apps.serve(
        """
class In(BaseAppInput):
    file: File

class App(BaseApp):
    async def run(self, input: In):
        cached = input.file.path.startswith(os.environ["FILE_CACHE_DIR"])
        return {"text": open(input.file.path).read(), "cached": cached}
"""
    )
    child.call(file={"uri": "data:text/plain,hi%20there"})
    assert child.final()["output"] == {"text": "hi there", "cached": True}
    child.call(task_id="t2", file="http://127.0.0.1:1/nothing")
    error = child.final("t2")["error"]
    assert (error["code"], error["errors"][0]["path"]) == ("invalid_input", "/input/file")


def test_deltas_are_all_sent_in_order(apps: Children) -> None:
    child = apps.serve(
        """
class In(BaseAppInput):
    pass
class Token(StreamDelta):
    text: str
class App(BaseApp):
    async def run(self, input: In):
        for n in range(300):
            yield Token(text=str(n))
        yield {"text": "all"}
"""
    )
    child.call()
    assert child.final()["output"] == {"text": "all"}
    assert [m["delta"]["text"] for m in child.seen if m["t"] == "delta"] == [str(n) for n in range(300)]


CANCEL: dict[str, tuple[str, list[str]]] = {
    "coroutine": ("async def run(self, input: In):\n        print('in')\n        await asyncio.sleep(60)", []),
    "sync that looks": (
        "def run(self, input: In):\n        print('in')\n        while not self.context.cancel_requested:\n"
        "            time.sleep(0.001)\n        return 1",
        [],
    ),
    "blocking coroutine": (
        "async def run(self, input: In):\n        print('in')\n        while not self.context.cancel_requested:\n"
        "            time.sleep(0.001)\n        return 1",
        [],
    ),
    "generator": ("def run(self, input: In):\n        print('in')\n        while True:\n            yield {}", []),
    "async generator": (
        "async def run(self, input: In):\n        print('in')\n        try:\n            while True:\n"
        "                yield {}\n                await asyncio.sleep(0.001)\n"
        "        finally:\n            print('closed')",
        ["closed"],
    ),
    "hook": (
        "def on_cancel(self):\n        print('hook')\n        self.flag = True\n"
        "    def run(self, input: In):\n        self.flag = False\n        print('in')\n"
        "        while not self.flag:\n            time.sleep(0.001)",
        ["hook"],
    ),
    "async hook": (
        "async def on_cancel(self):\n        print('hook')\n"
        "    async def run(self, input: In):\n        print('in')\n        await asyncio.sleep(60)",
        ["hook"],
    ),
}


@pytest.mark.parametrize("name", CANCEL)
def test_cancel_is_cooperative(apps: Children, name: str) -> None:
    source, lines = CANCEL[name]
    child = apps.serve(f"class In(BaseAppInput):\n    pass\nclass App(BaseApp):\n    {source}\n")
    child.call()
    child.next("log")
    child.call(task_id="held")
    child.send(messages.cancel("held"), messages.cancel("t1"), messages.cancel("t1"), messages.cancel("unknown"))
    assert child.final("held")["t"] == "cancelled"
    child.call(task_id="t2")
    child.next("started", lambda m: m["id"] == "t2")
    assert [m["t"] for m in child.seen if m.get("id") == "t1" and m["t"] not in ("log", "partial")] == [
        "started",
        "cancelled",
    ]
    assert child.lines() == ["in", *lines]


def test_a_call_cancelled_in_the_same_batch_is_answered_once(apps: Children) -> None:
    child = apps.serve(
        "class In(BaseAppInput):\n    pass\nclass App(BaseApp):\n    async def run(self, input: In): ...\n"
    )
    child.send(messages.call("t1", 1, "", {}), messages.cancel("t1"), messages.call("t2", 1, "", {}))
    assert child.final("t2")["t"] == "result"
    assert len([m for m in child.seen if m.get("id") == "t1" and m["t"] in ("result", "cancelled")]) == 1


def test_concurrent_calls_overlap_and_keep_their_own_context(apps: Children) -> None:
    child = apps.serve(
        """
class In(BaseAppInput):
    n: int

class App(BaseApp):
    async def setup(self):
        self.arrived = 0
        self.all = asyncio.Event()
    async def run(self, input: In):
        self.arrived += 1
        if self.arrived == 4:
            self.all.set()
        await self.all.wait()
        print("n", input.n)
        return self.context.task_id
""",
        concurrency=4,
    )
    for n in range(4):
        child.call(task_id=f"c{n}", n=n)
    finals: list[Any] = [child.next("result") for _ in range(4)]
    assert {m["id"]: m["output"] for m in finals} == {f"c{n}": f"c{n}" for n in range(4)}
    assert [child.lines(f"c{n}") for n in range(4)] == [[f"n {n}"] for n in range(4)]


def test_one_call_at_a_time_by_default(apps: Children) -> None:
    child = apps.serve(
        "class In(BaseAppInput):\n    pass\nclass App(BaseApp):\n    async def run(self, input: In):\n"
        "        await asyncio.sleep(0.005)\n"
    )
    for n in range(3):
        child.call(task_id=f"c{n}")
    child.final("c2")
    kinds = [(m["t"], m["id"]) for m in child.seen if m["t"] in ("started", "result")]
    assert kinds == [(kind, f"c{n}") for n in range(3) for kind in ("started", "result")]


def test_progress_takes_numbers_only(apps: Children) -> None:
    child = apps.serve(
        """
import fractions
class App(BaseApp):
    def run(self, input: BaseAppInput):
        wrong = []
        for value in ("many", None, float("nan")):
            try:
                self.report_progress(value, 2)
            except (TypeError, ValueError) as error:
                wrong.append(type(error).__name__)
        self.report_progress(fractions.Fraction(1, 2), True)
        return wrong
"""
    )
    child.call()
    assert child.final()["output"] == ["ValueError", "TypeError", "ValueError"]
    (progress,) = (m for m in child.seen if m["t"] == "progress")
    assert (progress["current"], progress["total"]) == (0.5, 1.0)


def test_processes_of_multiprocessing_work(apps: Children) -> None:
    child = apps.serve(
        """
import multiprocessing
def double(n):
    print("in the worker")
    return 2 * n
class App(BaseApp):
    def run(self, input: BaseAppInput):
        results = []
        for method in ("fork", "spawn"):
            with multiprocessing.get_context(method).Pool(1) as pool:
                results.append(pool.map(double, [1, 2]))
        return results
"""
    )
    child.call()
    assert child.final()["output"] == [[2, 4], [2, 4]]


def test_the_temp_directory_is_empty_when_the_answer_leaves(apps: Children) -> None:
    """Emptied later, it would take away what the next call has begun to write."""
    child = apps.serve(
        """
class In(BaseAppInput):
    pass

class App(BaseApp):
    def run(self, input: In):
        for name in range(50):
            (self.temp_dir / str(name)).write_text("x")
        return {}
"""
    )
    for number in range(50):
        child.call(task_id=f"t{number}")
        child.final(f"t{number}")
        assert list((child.root / "temp").iterdir()) == []
