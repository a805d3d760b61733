"""The ``pie`` command as a process of its own, and in this one where it needs none."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.inferlets.client.support import PieServer, manifest, share_compiled
from tests.inferlets.conftest import Build

ENTRY = [sys.executable, "-c", "from bakehouse.cli.pie import main; main()"]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Pie:
    """``pie(...)``: run a command to its end; ``pie.start(...)``: only start it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("BAKEHOUSE_", "INFERENCE_"))}
        self._env = {**kept, "BAKEHOUSE_HOME": str(self.home), "PYTHONUNBUFFERED": "1"}
        self._running: list[subprocess.Popen[str]] = []

    def __call__(self, *arguments: object, lines: str = "") -> Ended:
        process = self.start(*arguments)
        out, err = process.communicate(lines, timeout=120)
        return Ended(process.returncode, out, err)

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*ENTRY, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env=self._env,
        )
        self._running.append(process)
        return process

    def interrupt(self, process: subprocess.Popen[str]) -> Ended:
        """Press Ctrl-C."""
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        return Ended(process.returncode, out, err)

    def close(self) -> None:
        for process in self._running:
            if process.poll() is None:
                process.kill()
                process.communicate()


@pytest.fixture
def pie(tmp_path: Path) -> Iterator[Pie]:
    found = Pie(tmp_path)
    share_compiled(found.home)
    yield found
    found.close()


@pytest.fixture(scope="session")
def tool(built: Build) -> Path:
    """The client tests' ``tool.py`` as a component, alone in its folder."""
    return built((Path(__file__).parents[1] / "client" / "tool.py").read_text())


@pytest.fixture
def component(tool: Path, tmp_path: Path) -> Path:
    """The same with its manifest beside it."""
    path = tmp_path / "program" / "tool.wasm"
    path.parent.mkdir()
    path.write_bytes(tool.read_bytes())
    (path.parent / "Pie.toml").write_text(manifest("tool"))
    return path


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], Path]:
    """Write a native program."""

    def write(text: str) -> Path:
        path = tmp_path / "main.py"
        path.write_text(text)
        return path

    return write


@pytest.fixture
def server(pie: Pie) -> Iterator[PieServer]:
    found = PieServer(pie.home).start()
    yield found
    found.kill()
