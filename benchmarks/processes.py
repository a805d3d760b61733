"""Starting what is measured: the peers' environment, processes that die with us, free ports, memory over time."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".cache" / "bench-venv"


class PeerMissing(RuntimeError):
    """Something that a peer needs is not on this machine; the message says what."""


def peers_python() -> Path:
    """The interpreter of the peers' environment, made at the first use and again when the extra `bench` changes."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    peers: list[str] = project["optional-dependencies"]["bench"]
    stamp, wanted = VENV / "peers.txt", "\n".join(peers)
    python = VENV / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != wanted:
        uv = str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(VENV)], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", str(python), *peers], check=True)
        stamp.write_text(wanted)
    return python


def redis_binary() -> str:
    found = shutil.which("redis-server")
    if found is None:
        raise PeerMissing("redis-server is not installed (Debian: apt-get install redis-server)")
    return found


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running(command: list[str], log: Path, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run *command* in a process group of its own, its output in *log*; the whole group is killed at the end."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):  # it ended by itself
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path, timeout: float = 60) -> None:
    """Return when 127.0.0.1:*port* accepts; raise with the log when the process ends or time passes."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise PeerMissing(f"{process.args!r} did not open port {port}:\n{log.read_text(errors='replace')[-3000:]}")


def settle(patience: float, quiet: float = 20.0) -> float:
    """Wait up to *patience* seconds for the machine to be quiet; returns the per cent of its cores that others use."""
    deadline = time.monotonic() + patience
    while True:
        busy = psutil.cpu_percent(interval=1.0)
        if busy < quiet or time.monotonic() > deadline:
            return busy


class Memory:
    """Samples the resident memory of a process and its descendants in MiB, as a time series."""

    def __init__(self, pid: int, every: float = 0.5) -> None:
        self._root = psutil.Process(pid)
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.series: list[tuple[float, float, float]] = []
        """(seconds since the start, the process itself, its descendants)"""

    def __enter__(self) -> Memory:
        self._started = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(self._every):
            children = 0
            for child in self._root.children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):  # it ended between the two looks
                    children += child.memory_info().rss
            own = self._root.memory_info().rss
            at = round(time.monotonic() - self._started, 1)
            self.series.append((at, round(own / 2**20, 1), round(children / 2**20, 1)))


def cpu_seconds(pid: int) -> tuple[float, float]:
    """Processor time that a process and its living descendants have used so far: (itself, descendants)."""
    root = psutil.Process(pid)
    own, children = root.cpu_times(), 0.0
    for child in root.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # it ended between the two looks
            times = child.cpu_times()
            children += times.user + times.system
    return own.user + own.system, children
