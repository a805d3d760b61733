"""A ``pie serve`` process, and what is asked of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.inferlets.conftest import CACHE
from tests.support.server import Server

MANIFEST = '[package]\nname = "{name}"\nversion = "{version}"\n'


class PieServer(Server):
    """A real ``pie serve --dummy``; it keeps what it compiles where other tests find it."""

    def command(self) -> list[str]:
        address = ["--home", str(self.home), "--host", "127.0.0.1", "--port", str(self.port)]
        entry = "from bakehouse.cli.pie import main; main()"
        return [sys.executable, "-c", entry, "serve", "--dummy", *address, *self._arguments]

    def start(self, timeout: float = 60.0) -> PieServer:
        share_compiled(self.home)
        super().start(timeout)
        return self

    @property
    def address(self) -> str:
        return f"ws://127.0.0.1:{self.port}"


def share_compiled(home: Path) -> None:
    """Let a server on *home* find what was compiled before: it takes ten seconds for a program."""
    (CACHE / "compiled").mkdir(parents=True, exist_ok=True, mode=0o700)
    folder = home / "inferlets"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not (folder / "compiled").exists():
        (folder / "compiled").symlink_to(CACHE / "compiled")


def manifest(name: str, version: str = "1.0.0") -> str:
    return MANIFEST.format(name=name, version=version)


def frame(**fields: Any) -> str:
    return json.dumps(fields)
