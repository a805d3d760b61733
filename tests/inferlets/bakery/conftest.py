"""Built programs, launched in a sandbox on the dummy model: ``launched``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Literal

import pytest

from bakehouse.engine.handle import Engine
from bakehouse.engine.spec import ModelSpec
from bakehouse.inferlets.base import Launch, Outcome
from bakehouse.inferlets.host import InferletHost
from bakehouse.inferlets.programs import ProgramStore
from bakehouse.inferlets.sandbox import Sandbox
from tests.inferlets.conftest import CACHE, Build

WAIT_S = 120.0


@dataclass
class Ran:
    """What came out of one launch."""

    outcome: Outcome = field(default_factory=Outcome)
    messages: list[str] = field(default_factory=list)
    stdout: str = ""
    stderr: str = ""

    @property
    def result(self) -> str:
        assert self.outcome.failure is None, (self.outcome.failure, self.stderr)
        return self.outcome.result

    @property
    def error(self) -> str:
        assert self.outcome.failure is not None, self.outcome
        return self.outcome.failure.message

    def message(self, text: str) -> None:
        self.messages.append(text)

    def file(self, data: bytes) -> None:
        raise AssertionError("no program here sends files")

    def output(self, stream: Literal["stdout", "stderr"], text: str) -> None:
        setattr(self, stream, getattr(self, stream) + text)

    def ended(self, outcome: Outcome) -> None:
        self.outcome = outcome


Launched = Callable[..., Ran]


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InferletHost]:
    engine = asyncio.run(Engine.start([ModelSpec(name="dummy", source="dummy", seed=1)]))
    sandbox = Sandbox(CACHE / "compiled")
    host = InferletHost(engine, sandbox, ProgramStore(tmp_path_factory.mktemp("programs"), sandbox))
    yield host
    host.close()
    sandbox.close()
    asyncio.run(engine.close())


@pytest.fixture(scope="session")
def launched(host: InferletHost, built: Build) -> Launched:
    """Build a program (or take a component that is built), launch it with arguments, and wait for its end."""
    ids = count(1)

    def launch(source: Path | str, *arguments: str) -> Ran:
        path = source if isinstance(source, Path) and source.suffix == ".wasm" else built(source)
        name = f"p{next(ids)}"
        manifest = f'[package]\nname = "{name}"\nversion = "1.0.0"\n'
        program = host.programs.install("local", manifest, path.read_bytes())
        ran = Ran()
        instance = host.launch(
            Launch(id=name, owner="local", username="local", program=program.ref, arguments=arguments), ran
        )
        assert instance.wait(WAIT_S) is not None
        return ran

    return launch
