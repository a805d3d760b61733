"""What a child does to its own process: descriptors, death with the server, signals, forks."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Callable

FD_VARIABLE = "BAKEHOUSE_FD"
TERMINATED = 143
_TERM_GRACE = 1.0
_MANY = 65535
_PR_SET_PDEATHSIG = 1


def open_socket() -> socket.socket:
    """The inherited message socket; raises ``SystemExit`` with a hint when the variable is missing."""
    text = os.environ.pop(FD_VARIABLE, "")
    if not text.isdigit():
        raise SystemExit(f"{FD_VARIABLE} must name the message socket; this program is started by the server")
    channel = socket.socket(fileno=int(text))
    channel.setblocking(True)
    channel.set_inheritable(False)
    return channel


def close_descriptors(keep: int) -> None:
    """Close all but 0, 1, 2 and ``keep``: nothing that leaked from the server may reach the app."""
    try:
        highest = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
    except OSError:
        highest = _MANY  # no /proc, or the isolation hides it
    os.closerange(3, keep)
    os.closerange(keep + 1, highest + 1)


def die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the server dies; where it cannot, the closed socket ends the child."""
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # it died between the two calls, so no signal will come


def report_crashes() -> None:
    """A segfault leaves its Python stack on descriptor 2, which the server logs."""
    faulthandler.enable(file=2, all_threads=False)


def on_terminate(stop: Callable[[], None]) -> None:
    """Call ``stop`` on SIGTERM or SIGINT, and end the process by force if it is still there soon after."""

    def handle(_number: int, _frame: object) -> None:
        timer = threading.Timer(_TERM_GRACE, os._exit, (TERMINATED,))
        timer.daemon = True
        timer.start()
        stop()

    signal.signal(signal.SIGTERM, handle)
    signal.signal(signal.SIGINT, handle)


def after_fork(channel: socket.socket) -> None:
    """Forked children of the app keep neither the socket nor the captured streams: they would garble messages."""

    def in_child() -> None:
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with contextlib.suppress(OSError):  # an app that closed every descriptor itself did this already
            os.close(channel.detach())

    os.register_at_fork(after_in_child=in_child)
