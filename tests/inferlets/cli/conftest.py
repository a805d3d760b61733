"""The ``pie`` command as a process of its own, and in this one where it needs none."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bakehouse.cli.pie import main
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

    def here(self, *arguments: object, command: Callable[[Sequence[str]], None] = main) -> Ended:
        """Run a command in this process, which is faster: one that starts no engine."""
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            for name in os.environ:
                if name not in self._env:
                    patch.delenv(name)
            patch.setenv("BAKEHOUSE_HOME", str(self.home))
            patch.chdir(self.folder)
            with pytest.raises(SystemExit) as ended:
                command([str(argument) for argument in arguments])
        return Ended(int(ended.value.code or 0), out.getvalue(), err.getvalue())

    def start(self, *arguments: object, stdin: int = subprocess.PIPE) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*ENTRY, *map(str, arguments)],
            stdin=stdin,
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


def beside(tool: Path, folder: Path) -> Path:
    """*tool* in *folder*, its manifest beside it."""
    path = folder / "program" / "tool.wasm"
    path.parent.mkdir()
    path.write_bytes(tool.read_bytes())
    (path.parent / "Pie.toml").write_text(manifest("tool"))
    return path


@pytest.fixture
def component(tool: Path, tmp_path: Path) -> Path:
    """The tool with its manifest."""
    return beside(tool, tmp_path)


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
    """A server of this test's own, on the home of ``pie``."""
    found = PieServer(pie.home).start()
    yield found
    found.kill()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, tool: Path) -> Iterator[Pie]:
    """A server for the tests of a module, with ``tool@1.0.0`` installed."""
    pie = Pie(tmp_path_factory.mktemp("served"))
    server = PieServer(pie.home).start()
    try:
        assert pie.here("install", beside(tool, pie.folder)).status == 0
        yield pie
    finally:
        pie.close()
        server.kill()
