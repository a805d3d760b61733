"""A child process of the server: started through the shim, watched through a pidfd, ended without remains."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bakehouse.launch.channel import Pipe
from bakehouse.launch.isolate import ISOLATION_FAILED, command

MARKER = "BAKEHOUSE_INSTANCE"


class Process:
    """One running child. ``on_exit(status)`` is called once, from the loop, after its last printed line.

    *status* is as in ``subprocess``: an exit status, or minus the number of a signal.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        plan: dict[str, Any],
        environ: dict[str, str],
        socket_fd: int | None,
        on_lines: Callable[[str, list[str]], None],
        on_exit: Callable[[int], None],
    ) -> None:
        """Start it. Raises OSError when the machine has no room for a process."""
        self._loop, self._on_exit = loop, on_exit
        self._popen = subprocess.Popen(
            command(plan),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environ,
            pass_fds=() if socket_fd is None else (socket_fd,),
            cwd=plan["cwd"],
            start_new_session=True,
        )
        assert self._popen.stdout is not None
        assert self._popen.stderr is not None
        self.pid = self._popen.pid
        self._pipes = [
            Pipe(loop, _own(self._popen.stdout), lambda lines: on_lines("stdout", lines)),
            Pipe(loop, _own(self._popen.stderr), lambda lines: on_lines("stderr", lines)),
        ]
        self._pidfd = os.pidfd_open(self.pid)
        loop.add_reader(self._pidfd, self._exited)

    @property
    def alive(self) -> bool:
        return self._pidfd >= 0

    def signal(self, signum: int) -> None:
        """Send *signum*; nothing happens when it has ended."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):  # ended, but the loop has not told us yet
                signal.pidfd_send_signal(self._pidfd, signum)

    def kill(self) -> None:
        """Kill the app and all it started: the shim does it and ends; before it has begun, it ends itself."""
        self.signal(signal.SIGUSR1)

    def drain_output(self) -> None:
        """Hand on what has been printed up to now."""
        for pipe in self._pipes:
            pipe.drain()

    def _exited(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        status = self._popen.wait()
        for pipe in self._pipes:
            pipe.drain()
            pipe.close()
        self._on_exit(status)


def _own(stream: Any) -> int:
    """The descriptor of *stream*, ours to close."""
    fd = os.dup(stream.fileno())
    os.set_inheritable(fd, False)
    stream.close()
    return fd


def end_text(status: int) -> str:
    """How a process ended, in words: ``exit status 3``, ``killed by SIGKILL``."""
    if status == ISOLATION_FAILED:
        return "its isolation could not be applied"
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


def message_sockets() -> tuple[socket.socket, socket.socket]:
    """A connected pair: ours and the child's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in (ours, theirs):
        # A larger buffer saves switches between the processes when many small calls are in flight.
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 512 * 1024)
    return ours, theirs


def remove_tree(path: Path) -> None:
    """Delete an instance's directory, whatever permissions the app left. What stays goes at the next start."""
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        for folder, _, _ in os.walk(path):
            with contextlib.suppress(OSError):  # the second removal shows what is left
                Path(folder).chmod(0o700)
        shutil.rmtree(path, ignore_errors=True)


def sweep_marked(marker: str) -> int:
    """Kill every process whose environment has ``MARKER`` beginning with *marker*; how many there were.

    Finds what an earlier server's instances left where the kernel does not end it by itself. Reads /proc; blocks for
    some milliseconds.
    """
    wanted = f"{MARKER}={marker}".encode()
    found = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended, or it is another user's
        if any(variable.startswith(wanted) for variable in variables):
            found += 1
            with contextlib.suppress(ProcessLookupError):  # ended meanwhile
                os.kill(int(entry.name), signal.SIGKILL)
    return found
