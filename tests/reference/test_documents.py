"""Every Python block of the reference documents runs as it stands there, against a real server."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from inferencesh import Inference, NotConfigured, TaskStatus

from tests.reference import table
from tests.reference.documents import Block, blocks, folder
from tests.support.server import Server

DOCUMENTS = ("1-inference-sh-python-sdk.md", "2-inference-sh-streaming-python.md")
HERE = Path(__file__).parent

missing = [name for name in DOCUMENTS if not (folder() / name).is_file()]
if missing:
    pytest.skip(
        f"NOT TESTED: the reference documents {', '.join(missing)} are not in {folder()}; "
        "put them there or set BAKEHOUSE_REFERENCE",
        allow_module_level=True,
    )

BLOCKS = {block.name: block for name in DOCUMENTS for block in blocks(folder() / name)}
RUNNABLE = [name for name, entry in table.BLOCKS.items() if not entry.unsupported]


class Bench:
    """A server with the app of the documents, and everything that the blocks leave open."""

    def __init__(self, server: Server, picture: Path) -> None:
        self.server, self.picture = server, picture
        self.client = Inference(server.key, base_url=server.base_url)
        self.app = "reference-scene"
        self.config = {"app": self.app, "input": {"prompt": "dusk"}}
        self.literals = self._literals()

    def _literals(self) -> dict[str, str]:
        real = {
            table.KEY: self.server.key,
            table.SCENE: self.app,
            table.AGENT: "my-org/assistant@latest",
            table.PICTURE: str(self.picture),
            table.RESULT: "/usr/bin/env",
        }
        return {literal: real[meaning] for literal, meaning in table.LITERALS.items()}

    def finished(self) -> str:
        return self.client.run(self.config).id

    def names(self, block: str) -> dict[str, Any]:
        """Values for the names that *block* leaves open."""
        makers: dict[str, Callable[[], Any]] = {
            "client": lambda: self.client,
            "config": lambda: self._config(block),
            "params": lambda: self.config,
            # The document cancels this task before it waits for its result: only one that is over has one by then.
            "task_id": self.finished,
            "TaskStatus": lambda: TaskStatus,
            "should_cancel": lambda: lambda: True,
            "execute_tool": lambda: dict,
            "time": lambda: time,
        }
        return {name: makers[name]() for name in table.BLOCKS[block].names}

    def _config(self, block: str) -> dict[str, Any]:
        if block == "2 Cancelling a Stream":
            return {"app": self.app, "input": {"prompt": "dusk", "frames": 10_000}}
        return self.config

    def execute(self, name: str) -> tuple[dict[str, Any], str]:
        """Run a block; returns its names and what it printed."""
        namespace: dict[str, Any] = {"__name__": "document", **self.names(name)}
        screen = io.StringIO()
        with redirect_stdout(screen):
            exec(BLOCKS[name].code(self.literals), namespace)
            if "main" in namespace:  # the document leaves the call of its coroutine to the reader
                asyncio.run(namespace["main"]())
        return namespace, screen.getvalue()


@pytest.fixture(scope="module")
def bench(bakehouse_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    bakehouse_server.deploy(HERE / "apps" / "scene")
    picture = tmp_path_factory.mktemp("files") / "picture.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(64))
    found = Bench(bakehouse_server, picture)
    found.client.run(found.config)  # the first call starts an instance; the blocks then show their usual pace
    yield found
    found.client.close()


@pytest.fixture(autouse=True)
def _address(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks name a key and never an address: that comes from the environment."""
    if "bench" in request.fixturenames:
        monkeypatch.setenv("INFERENCE_BASE_URL", request.getfixturevalue("bench").server.base_url)


class TestTable:
    """The table is complete and nothing in it is idle."""

    def test_every_block_is_listed(self) -> None:
        assert list(BLOCKS) == list(table.BLOCKS)

    @pytest.mark.parametrize("name", table.BLOCKS)
    def test_exactly_the_open_names_are_bound(self, name: str) -> None:
        assert BLOCKS[name].open_names() == table.BLOCKS[name].names

    def test_every_literal_stands_in_a_document(self) -> None:
        assert set(table.LITERALS) <= {text for block in BLOCKS.values() for text in block.strings()}

    def test_literals_are_replaced_whole_and_nothing_else_is(self) -> None:
        block = Block("x", "a = ['your-app', 'your-app/b', f'{1}your-app']\n", 1)
        namespace: dict[str, Any] = {}
        exec(block.code({"your-app": "mine"}), namespace)
        assert namespace["a"] == ["mine", "your-app/b", "1your-app"]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", RUNNABLE)
def test_a_block_runs_as_it_stands(bench: Bench, name: str) -> None:
    namespace, screen = bench.execute(name)
    for text in table.BLOCKS[name].prints:
        assert text in screen, f"{text!r} is not in:\n{screen}"
    check = CHECKS.get(name)
    if check is not None:
        check(bench, namespace, screen)


def _setup(bench: Bench, namespace: dict[str, Any], screen: str) -> None:
    assert namespace["result"]["output"]["model"] == "schnell"


def _ran(bench: Bench, namespace: dict[str, Any], screen: str) -> None:
    assert namespace["task_id"].startswith("task_")
    assert bench.client.wait_for_completion(namespace["task_id"])["status"] == "completed"


def _managed(bench: Bench, namespace: dict[str, Any], screen: str) -> None:
    assert namespace["result"]["id"] == namespace["task_id"]
    assert namespace["stream"].result["output"]["scene"].startswith("[dusk 1]")


def _uploaded(bench: Bench, namespace: dict[str, Any], screen: str) -> None:
    assert bench.server.api.get(namespace["file_obj"]["uri"]).content == bench.picture.read_bytes()
    assert namespace["file_obj"]["filename"] == "custom_name.png"
    assert namespace["file_obj"]["content_type"] == "image/png"


def _handled(bench: Bench, namespace: dict[str, Any], screen: str) -> None:
    assert namespace["exists"] is True
    assert screen.split() == ["image/png", str(bench.picture.stat().st_size), bench.picture.name]


def _scene(bench: Bench, namespace: dict[str, Any], screen: str) -> None:
    assert namespace["result"]["scene"].startswith("[Ocean waves 1]")


def _parallel(bench: Bench, namespace: dict[str, Any], screen: str) -> None:
    scenes = [output["scene"] for output in namespace["results"]]
    assert [scene.split(" 1]")[0] for scene in scenes] == ["[A mountain", "[An ocean", "[A forest"]


def _cancelled(bench: Bench, namespace: dict[str, Any], screen: str) -> None:
    with bench.client.stream_task(namespace["task_id"], timeout=30) as stream:
        *_, last = stream
    assert last["status"] == "cancelled"


def _logs(bench: Bench, namespace: dict[str, Any], screen: str) -> None:
    assert namespace["all_logs"] == ["frame 1", "frame 2", "frame 3", "frame 4"]


def _processed(bench: Bench, namespace: dict[str, Any], screen: str) -> None:
    assert namespace["processor"].logs == ["frame 1", "frame 2", "frame 3", "frame 4"]
    assert namespace["processor"].duration > 0


CHECKS: dict[str, Callable[[Bench, dict[str, Any], str], None]] = {
    "1 with setup parameters": _setup,
    "1 run options": _ran,
    "1 task management": _managed,
    "1 file upload": _uploaded,
    "1 file handling": _handled,
    "2 Async Streaming": _scene,
    "2 Multiple Streams in Parallel": _parallel,
    "2 Cancelling a Stream": _cancelled,
    "2 Collecting All Logs": _logs,
    "2 Custom Stream Processing": _processed,
}
"""What a block must have done, beside what it prints."""


@pytest.mark.timeout(120)
def test_agents_are_refused_clearly_until_there_are_some(bench: Bench) -> None:
    (name,) = [name for name, entry in table.BLOCKS.items() if entry.unsupported]
    with pytest.raises(NotConfigured) as caught:
        bench.execute(name)
    assert (caught.value.status_code, caught.value.code) == (501, "not_configured")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("there", [True, False], ids=["result-there", "result-missing"])
def test_the_documents_app_is_deployed_and_run(bench: Bench, tmp_path: Path, there: bool) -> None:
    source = BLOCKS["1 creating an app"].source
    if there:
        source = source.replace('"/tmp/result.png"', repr(bench.literals["/tmp/result.png"]))
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "inference.py").write_text(source)
    (folder / "inf.yml").write_text(f"name: reference-image-{'there' if there else 'missing'}\n")
    app = bench.server.deploy(folder)
    picture = bench.server.upload(bench.picture.read_bytes(), "in.png", "image/png")["uri"]
    task = bench.server.run(app["name"], {"image": picture, "mask": picture})
    if there:
        assert task["status"] == TaskStatus.COMPLETED, task
        assert bench.server.api.get(task["output"]["image"]).content == Path("/usr/bin/env").read_bytes()
    else:
        assert task["status"] == TaskStatus.FAILED
        assert "/tmp/result.png" in task["error"]
