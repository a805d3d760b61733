"""What the tests of the sandbox share: how a guest is built, and how one is run."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from bakehouse.engine.handle import Engine
from bakehouse.inferlets.base import Launch, Limits, Outcome, OwnerLimits, Services
from bakehouse.inferlets.calls.guest import Guest
from bakehouse.inferlets.errors import SpawnFailed
from bakehouse.inferlets.mcp import ConfiguredMcp
from bakehouse.inferlets.messaging import LocalMessaging
from bakehouse.inferlets.sandbox import Compiled, Sandbox
from tests.inferlets.conftest import CACHE

WIT = Path(__file__).parents[3] / "sdk" / "inferlet" / "wit"

_BUILD = """
import sys
from componentize_py import script
sys.argv = ["componentize-py", *sys.argv[1:]]
sys.exit(script())
"""


def build(source: Path, wit: Path, world: str) -> Path:
    """A component of *source* for *world*; built when it, the WIT or the tool has changed."""
    parts = [source, *sorted(wit.rglob("*.wit"))]
    text = b"".join(each.read_bytes() for each in parts) + f"{world} {version('componentize-py')}".encode()
    out = CACHE / "sandbox" / f"{hashlib.sha256(text).hexdigest()[:32]}.wasm"
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        new = out.with_suffix(f".{os.getpid()}")
        command = ["-d", wit, "-w", world, "componentize", source.stem, "-p", source.parent, "-o", new]
        subprocess.run([sys.executable, "-c", _BUILD, *map(str, command)], check=True, capture_output=True)
        new.rename(out)
    return out


class Alone(Services):
    """Topics and MCP servers as a host has them, but no other programs."""

    def __init__(self) -> None:
        self.messaging = LocalMessaging(OwnerLimits())
        self.mcp = ConfiguredMcp()

    def spawn(self, parent: Launch, program: str, arguments: tuple[str, ...]) -> Future[str]:
        raise SpawnFailed("nothing is installed here")


@dataclass
class Seen:
    """What came out of an instance."""

    messages: list[str] = field(default_factory=list)
    files: list[bytes] = field(default_factory=list)
    printed: list[tuple[str, str]] = field(default_factory=list)

    def message(self, text: str) -> None:
        self.messages.append(text)

    def file(self, data: bytes) -> None:
        self.files.append(data)

    def output(self, stream: Literal["stdout", "stderr"], text: str) -> None:
        self.printed.append((stream, text))

    def ended(self, outcome: Outcome) -> None:
        raise AssertionError("of the host, not of the sandbox")


@dataclass
class Ran:
    outcome: Outcome
    seen: Seen

    @property
    def result(self) -> str:
        assert self.outcome.failure is None, self.outcome.failure
        return self.outcome.result

    @property
    def limit(self) -> str | None:
        assert self.outcome.failure is not None, self.outcome.result
        return self.outcome.failure.limit

    @property
    def error(self) -> str:
        assert self.outcome.failure is not None, self.outcome.result
        return self.outcome.failure.message


class Runner:
    """Runs one program on one engine."""

    def __init__(self, sandbox: Sandbox, program: Compiled, engine: Engine) -> None:
        self.sandbox, self.program, self.engine = sandbox, program, engine
        self.services = Alone()
        self.adapters: Path | None = None
        self._last = 0

    def guest(self, code: str, *arguments: str, owner: str = "ada", seen: Seen | None = None, **limits: float) -> Guest:
        self._last += 1
        launch = Launch(
            id=f"i{self._last}",
            owner=owner,
            username=owner,
            program="guest@1.0.0",
            arguments=(code, *arguments),
            limits=Limits(**limits),  # type: ignore[arg-type]
        )
        return Guest(launch, self.engine, self.services, seen or Seen(), adapters=self.adapters)

    def run(self, code: str, *arguments: str, **limits: float) -> Ran:
        """To its end, on this thread."""
        seen = Seen()
        guest = self.guest(code, *arguments, seen=seen, **limits)
        try:
            return Ran(self.sandbox.run(self.program, guest, seen.output), seen)
        finally:
            guest.close()

    @contextmanager
    def running(self, code: str, **limits: float) -> Iterator[Started]:
        """On a thread of its own; it has to end before the block does, or soon after."""
        started = Started(self, code, **limits)
        try:
            yield started
        finally:
            started.wait(60)
            started.guest.close()


class Started:
    def __init__(self, runner: Runner, code: str, **limits: float) -> None:
        self.seen = Seen()
        self.guest = runner.guest(code, seen=self.seen, **limits)
        self._outcome: Future[Outcome] = Future()
        self._runner = runner
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self._outcome.set_result(self._runner.sandbox.run(self._runner.program, self.guest, self.seen.output))
        except BaseException as error:
            self._outcome.set_exception(error)

    def wait(self, seconds: float) -> Ran:
        return Ran(self._outcome.result(seconds), self.seen)


HONEST = """
model = models.load("tiny")
lengths = []
for _ in range(20):
    context = contexts.create(model, None)
    contexts.say(context, "user", "what is a sandbox?")
    contexts.cue(context)
    request = {"sampler": {"kind": "multinomial", "temperature": 0.0}, "max_tokens": 8, "whole": True}
    wait = passes.generate(context, json.dumps(request))
    lengths.append(tuple(json.loads(waits.take(wait))["tokens"]))
    waits.drop(wait)
    contexts.release(context)
    client.send("done")
result = len(set(lengths)), len(lengths)
"""
"""Generates the same thing over and over; its result says that it was the same."""
