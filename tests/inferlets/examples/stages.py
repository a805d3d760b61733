"""Where an example runs: under plain CPython in this process, or built, installed and in the sandbox."""

from __future__ import annotations

import asyncio
import io
import json
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stdout
from itertools import count
from pathlib import Path
from typing import Any

from bakehouse.engine.handle import Engine
from bakehouse.inferlets.base import Launch, Services
from bakehouse.inferlets.host import InferletHost
from bakehouse.inferlets.programs import Program
from tests.inferlets.examples.checks import Turns
from tests.inferlets.examples.support import (
    EXAMPLES,
    OWNER,
    Ran,
    Seen,
    arguments_of,
    connected,
    manifest_of,
    ran,
    run_source,
    source_of,
)

GREEDY = """
from inferlet import Context, Model, Sampler, runtime

def main(input: dict) -> str:
    with Context(Model.load(runtime.models()[0])) as ctx:
        for role, text in input["turns"]:
            getattr(ctx, role)(text)
        return ctx.generate_text(Sampler.greedy(), max_tokens=input["max_tokens"])
"""

WAIT_S = 120.0


class Native:
    """Under plain CPython."""

    def __init__(self, engine: Engine, services: Services, *, dummy: bool) -> None:
        self.engine, self.services, self.dummy = engine, services, dummy
        self._ids = count(1)

    def run(self, name: str, /, **given: Any) -> Ran:
        path = source_of(name)
        return self.run_text(path.read_text(encoding="utf-8"), str(path), **given)

    def run_text(self, source: str, path: str = "main.py", **given: Any) -> Ran:
        seen, screen, before = Seen(), io.StringIO(), self.work()
        with connected(self.engine, self.services, seen, id=f"native-{next(self._ids)}"), redirect_stdout(screen):
            text = run_source(source, path, arguments_of(given))
        return ran(text, seen, self.work() - before, screen.getvalue())

    def work(self) -> Counter[str]:
        """What the engine has done since it started."""
        done = asyncio.run(self.engine.stats(self.engine.served()[0].name))
        return Counter({name: int(done[name]) for name in ("steps", "rows")})

    def greedy(self, turns: Turns, max_tokens: int) -> str:
        seen = Seen()
        with connected(self.engine, self.services, seen, id=f"native-{next(self._ids)}"):
            return run_source(GREEDY, "greedy.py", [json.dumps({"turns": turns, "max_tokens": max_tokens})])


class Baked:
    """In the sandbox. *native* is of the same engine, and says what plain generation gives."""

    def __init__(self, host: InferletHost, native: Native, build: Callable[[Path], Path]) -> None:
        self.host, self.dummy = host, native.dummy
        self.greedy, self.work = native.greedy, native.work
        self._build = build
        self._ids = count(1)

    def install(self, name: str) -> Program:
        wasm = self._build(EXAMPLES / name)
        return self.host.programs.install(OWNER, manifest_of(name), wasm.read_bytes())

    def run(self, name: str, /, **given: Any) -> Ran:
        program, seen, before = self.install(name), Seen(), self.work()
        launch = Launch(
            id=f"baked-{name}-{next(self._ids)}",
            owner=OWNER,
            username=OWNER,
            program=program.ref,
            arguments=tuple(arguments_of(given)),
        )
        outcome = self.host.launch(launch, seen, program).wait(WAIT_S)
        assert outcome is not None, f"{name} did not end in {WAIT_S} s"
        assert outcome.failure is None, f"{outcome.failure}\n{seen.printed}"
        return ran(outcome.result, seen, self.work() - before)
