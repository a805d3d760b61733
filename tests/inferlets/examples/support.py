"""Runs an example as its reader does: under plain CPython in this process, or baked and in the sandbox."""

from __future__ import annotations

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import inferlet
from inferlet import _program

from bakehouse.engine.handle import Engine
from bakehouse.inferlets.base import Launch, Outcome, Services
from bakehouse.inferlets.calls.guest import Guest
from bakehouse.inferlets.calls.native import NativeHost

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples" / "inferlets"
NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/main.py"))
OWNER = "ada"


@dataclass
class Seen:
    """An outlet that keeps what it is told."""

    messages: list[str] = field(default_factory=list)
    files: list[bytes] = field(default_factory=list)
    printed: str = ""
    outcome: Outcome | None = None

    def message(self, text: str) -> None:
        self.messages.append(text)

    def file(self, data: bytes) -> None:
        self.files.append(data)

    def output(self, stream: Literal["stdout", "stderr"], text: str) -> None:
        self.printed += text

    def ended(self, outcome: Outcome) -> None:
        self.outcome = outcome


@dataclass
class Ran:
    """A program that came to its end: its result (what its JSON says, if it is some) and what it sent and printed.

    *work* is what the engine did for it: ``steps``, and ``rows`` of tokens in them.
    """

    result: Any
    messages: list[str]
    printed: str
    work: Counter[str]


def ran(text: str, seen: Seen, work: Counter[str], printed: str = "") -> Ran:
    try:
        return Ran(json.loads(text), seen.messages, printed + seen.printed, work)
    except ValueError:
        return Ran(text, seen.messages, printed + seen.printed, work)


def source_of(name: str) -> Path:
    return EXAMPLES / name / "main.py"


def arguments_of(given: Mapping[str, Any]) -> list[str]:
    return [json.dumps(given)] if given else []


@contextlib.contextmanager
def connected(
    engine: Engine,
    services: Services,
    seen: Seen,
    *,
    owner: str = OWNER,
    id: str = "native",
    adapters: Path | None = None,
) -> Iterator[Guest]:
    """`inferlet` talks to a guest of *engine* in this process; everything of it is freed afterwards."""
    launch = Launch(id=id, owner=owner, username=owner, program="native@0.0.0")
    guest = Guest(launch, engine, services, seen, adapters=adapters)
    with contextlib.closing(guest), inferlet.connect(NativeHost(guest)):
        yield guest


def run_source(source: str, path: str, arguments: list[str]) -> str:
    """What the program says in the end. What Python keeps of a program that runs is put back."""
    name = _program.module_name(source, path)
    kept, argv = sys.modules.get(name), sys.argv[:]
    try:
        return _program.run(compile(source, path, "exec", dont_inherit=True), ModuleType(name), arguments)
    finally:
        sys.argv[:] = argv
        sys.modules.pop(name, None)
        if kept is not None:
            sys.modules[name] = kept


def manifest_of(name: str) -> str:
    return (EXAMPLES / name / "Pie.toml").read_text(encoding="utf-8")
