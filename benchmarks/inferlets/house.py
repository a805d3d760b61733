"""A host of inferlets in this process, with the benchmark's programs installed."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import Literal

from bakehouse.engine.handle import Engine
from bakehouse.engine.model import ServedModel
from bakehouse.engine.spec import ModelSpec
from bakehouse.inferlets import bakery
from bakehouse.inferlets.base import Launch, Limits, Outcome, Outlet, OwnerLimits
from bakehouse.inferlets.host import InferletHost, Instance
from bakehouse.inferlets.programs import ProgramStore
from bakehouse.inferlets.sandbox import Sandbox
from benchmarks.engine.workers import CACHE

HERE = Path(__file__).parent
MANY = OwnerLimits(instances=4096, memory=1 << 40)
#: Hours, and a great many calls: what is measured is what things cost, not where they end.
LIMITS = Limits(cpu=3600, calls=100_000_000)


class Seen(Outlet):
    """Notes the messages, and when the end came."""

    def __init__(self) -> None:
        self.messages: list[str] = []
        self.printed: list[str] = []
        self._news = threading.Condition()
        self._read = 0
        self.outcome: Outcome | None = None

    def message(self, text: str) -> None:
        with self._news:
            self.messages.append(text)
            self._news.notify()

    def file(self, data: bytes) -> None:
        """Nobody asks for it."""

    def output(self, stream: Literal["stdout", "stderr"], text: str) -> None:
        self.printed.append(text)

    def ended(self, outcome: Outcome) -> None:
        with self._news:
            self.outcome = outcome
            self._news.notify()

    def next(self) -> str:
        """The next message. Raises RuntimeError if there will be none."""
        with self._news:
            self._news.wait_for(lambda: len(self.messages) > self._read or self.outcome is not None, 60)
            if len(self.messages) <= self._read:
                raise RuntimeError(f"no message came: {self.outcome} {self.printed}")
            self._read += 1
            return self.messages[self._read - 1]


class House:
    """An engine, a sandbox, and programs of the owner ``bench``. Close it."""

    def __init__(self, spec: ModelSpec, folder: Path, most: int = 600) -> None:
        self.model = ServedModel.load(spec)
        self.engine = Engine([self.model])
        self.sandbox = Sandbox(folder / "compiled")
        self.programs = ProgramStore(folder / "programs", self.sandbox)
        self.host = InferletHost(self.engine, self.sandbox, self.programs, limits=MANY, most=most)
        self._folder = folder
        self._numbers = itertools.count(1)

    def install(self, name: str) -> None:
        """``programs/NAME.py``, or the folder ``NAME``."""
        source = HERE / name
        if not source.is_dir():
            source = self._folder / "sources" / name
            source.mkdir(parents=True, exist_ok=True)
            (source / "main.py").write_bytes((HERE / "programs" / f"{name}.py").read_bytes())
            (source / "Pie.toml").write_text(f'[package]\nname = "{name}"\nversion = "1.0.0"\n')
        built = bakery.build(source, self._folder / f"{name}.wasm", cache=CACHE / "bakery")
        self.programs.install("bench", built.manifest_text, built.path.read_bytes(), force=True)

    def start(self, name: str, *arguments: str) -> tuple[Instance, Seen]:
        seen = Seen()
        launch = Launch(
            id=f"i{next(self._numbers)}",
            owner="bench",
            username="bench",
            program=f"{name}@1.0.0",
            arguments=arguments,
            limits=LIMITS,
        )
        return self.host.launch(launch, seen), seen

    def finish(self, instance: Instance, seen: Seen) -> str:
        """Its result. Raises RuntimeError if it failed."""
        outcome = instance.wait(1200)
        if outcome is None or outcome.failure is not None:
            raise RuntimeError(f"{instance.launch.program}: {outcome} {seen.printed}")
        return outcome.result

    def run(self, name: str, *arguments: str) -> str:
        return self.finish(*self.start(name, *arguments))

    def close(self) -> None:
        self.host.close()
        self.sandbox.close()
        self.model.close()


def dummy() -> ModelSpec:
    return ModelSpec(name="dummy", source="dummy")
