"""Every block of document 5 runs as it stands there: natively and in the sandbox, and its commands in a shell."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import inferlet
import pytest

from bakehouse.engine.handle import Engine
from bakehouse.engine.spec import ModelSpec
from bakehouse.inferlets.base import Launch, Messaging
from bakehouse.inferlets.host import InferletHost
from bakehouse.inferlets.programs import ProgramStore
from bakehouse.inferlets.sandbox import Sandbox
from tests.inferlets.conftest import CACHE, built
from tests.inferlets.examples.support import OWNER, Seen, run_source
from tests.reference import inferlet_table as table
from tests.reference.documents import ROOT, Block, blocks, folder
from tests.support.inferlets import keep_builds

__all__ = ["built"]

DOCUMENT = "5-inferlet-python-sdk.md"
PROGRAM = Path(__file__).parent / "inferlet_program.py"
MANIFEST = '[package]\nname = "document"\nversion = "1.0.0"\n'

if not (folder() / DOCUMENT).is_file():
    pytest.skip(
        f"NOT TESTED: the reference document {DOCUMENT} is not in {folder()}; put it there or set BAKEHOUSE_REFERENCE",
        allow_module_level=True,
    )

BLOCKS = {block.name: block for block in blocks(folder() / DOCUMENT)}
COMMANDS = [
    line
    for block in blocks(folder() / DOCUMENT, "bash")
    for line in block.source.splitlines()
    if line.startswith(("bakery ", "pie "))
]
LITERALS = {
    literal: {
        table.PROGRAM: "document@1.0.0",
        table.SCHEMA: json.dumps({"type": "object", "properties": {"temp": {"type": "integer"}}}),
    }[meaning]
    for literal, meaning in table.LITERALS.items()
}


class TestTable:
    """The table is complete and nothing in it is idle."""

    def test_every_block_is_listed(self) -> None:
        assert list(BLOCKS) == list(table.BLOCKS)

    @pytest.mark.parametrize("name", table.BLOCKS)
    def test_exactly_the_open_names_are_bound(self, name: str) -> None:
        assert BLOCKS[name].open_names() == table.BLOCKS[name]

    def test_every_literal_stands_in_the_document(self) -> None:
        assert set(table.LITERALS) <= {text for block in BLOCKS.values() for text in block.strings()}

    def test_the_commands_are_found(self) -> None:
        assert [command.split()[0] for command in COMMANDS] == ["bakery", "pie"]
        assert all(any(path in command for path in table.PATHS) for command in COMMANDS)


class Way(Protocol):
    """How blocks are run."""

    def __call__(self, block: Block) -> tuple[dict[str, Any], Seen]:
        """What the block left behind, and what its client saw."""
        ...


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = asyncio.run(Engine.start([ModelSpec(name="dummy", source="dummy", seed=1)]))
    yield engine
    asyncio.run(engine.close())


@pytest.fixture(scope="module")
def host(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferletHost]:
    sandbox = Sandbox(CACHE / "compiled")
    made = InferletHost(engine, sandbox, ProgramStore(tmp_path_factory.mktemp("programs"), sandbox))
    yield made
    made.close()
    sandbox.close()


@pytest.fixture(scope="module")
def sandboxed(host: InferletHost, built: Callable[[str], Path]) -> Way:
    wasm = built(PROGRAM.read_text(encoding="utf-8"))
    program = host.programs.install(OWNER, MANIFEST, wasm.read_bytes())
    numbers = count(1)

    def run(block: Block) -> tuple[dict[str, Any], Seen]:
        seen = Seen()
        launch = Launch(
            id=f"document-{next(numbers)}",
            owner=OWNER,
            username=OWNER,
            program=program.ref,
            arguments=(_input(block),),
        )
        instance = host.launch(launch, seen, program)
        instance.send("from the client")
        instance.send_file(b"a file")
        outcome = instance.wait(60)
        assert outcome is not None and outcome.failure is None, f"{outcome}\n{seen.printed}"
        return json.loads(outcome.result), seen

    return run


@pytest.fixture(scope="module")
def native(host: InferletHost, sandboxed: Way) -> Way:
    """Under plain CPython, as an instance of the same host; what blocks spawn runs in the sandbox."""
    numbers = count(1)

    def run(block: Block) -> tuple[dict[str, Any], Seen]:
        seen = Seen()
        launch = Launch(id=f"native-{next(numbers)}", owner=OWNER, username=OWNER, program="document@1.0.0")
        with inferlet.connect(host.open_native(launch, seen)):
            instance = host.instance(launch.id, OWNER)
            instance.send("from the client")
            instance.send_file(b"a file")
            source = PROGRAM.read_text(encoding="utf-8")
            return json.loads(run_source(source, str(PROGRAM), [_input(block)])), seen

    return run


def _input(block: Block) -> str:
    names = sorted(table.BLOCKS[block.name])
    return json.dumps({"block": block.name, "source": block.source, "literals": LITERALS, "names": names})


@pytest.fixture
def somebody_broadcasts(host: InferletHost) -> Iterator[None]:
    """The block about topics listens for ever, to whoever may come."""
    over, messaging = threading.Event(), host.services.messaging

    def broadcast(to: Messaging) -> None:
        while not over.wait(0.02):
            to.broadcast(OWNER, "topic", "at last")

    thread = threading.Thread(target=broadcast, args=(messaging,))
    thread.start()
    yield
    over.set()
    thread.join()


Left = dict[str, Any]


def _quick_start(left: Left, seen: Seen) -> None:
    assert seen.messages == [left["text"]] and left["text"]


def _imports(left: Left, seen: Seen) -> None:
    assert {"Model", "Tokenizer", "Context", "TokenStream", "EventStream", "Sampler", "Event"} <= set(left)
    assert {"Decoder", "ForwardPass", "Grammar", "Matcher", "Adapter"} <= set(left)
    assert {"session", "runtime", "messaging", "mcp", "zo"} <= set(left)


def _generation(left: Left, seen: Seen) -> None:
    assert left["text"] and len(left["text"]) <= 256
    assert seen.messages
    # Where the turn before had come to its end, there is nothing to go on with and the loop runs no time.
    assert all(isinstance(token, int) for token in left.get("tokens", []))
    assert left["all_text"]
    assert len(left["all_tokens"]) >= len(left["all_text"])  # the dummy's tokens are bytes


def _tools(left: Left, seen: Seen) -> None:
    for word in ("get_weather", "get_time", '{"temp": 72}'):
        assert word in left["buffer"]


def _structured(left: Left, seen: Seen) -> None:
    assert inferlet.Mask is not None
    allowed = inferlet.masks.allowed(left["mask"])
    assert ord("{") in allowed and ord("a") not in allowed


def _session(left: Left, seen: Seen) -> None:
    assert left["msg"] == "from the client" and left["file"] == b"a file".hex()
    assert seen.messages == ["Hello"] and seen.files == [b"\x00\xff" * 8]


def _messaging(left: Left, seen: Seen) -> None:
    assert left["msg"] == "at last"


CHECKS: dict[str, Callable[[Left, Seen], None]] = {
    "5 Quick Start": _quick_start,
    "5 API Reference": _imports,
    "5 Generation": _generation,
    "5 Tool Use": _tools,
    "5 Structured Generation": _structured,
    "5 Session & Runtime": _session,
    "5 Messaging": _messaging,
}
"""What a block must have done, beside coming to its end."""


@pytest.mark.usefixtures("somebody_broadcasts")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("way", ["native", "sandboxed"])
@pytest.mark.parametrize("name", table.BLOCKS)
def test_a_block_runs_as_it_stands(request: pytest.FixtureRequest, way: str, name: str) -> None:
    run: Way = request.getfixturevalue(way)
    left, seen = run(BLOCKS[name])
    CHECKS.get(name, lambda left, seen: None)(left, seen)


@pytest.mark.timeout(280)
def test_the_commands_run_as_they_stand(tmp_path: Path) -> None:
    """From an empty directory that holds the document's folder of examples, bound to ours."""
    for theirs, ours in table.PATHS.items():
        (tmp_path / theirs).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / theirs.rstrip("/")).symlink_to(ROOT / ours, target_is_directory=True)
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("BAKEHOUSE_", "PIE_"))}
    environ |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "BAKEHOUSE_HOME": str(keep_builds(tmp_path / "home")),
    }
    for command in COMMANDS:
        done = subprocess.run(
            ["bash", "-ec", command], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
    assert "[Message] " in done.stdout
