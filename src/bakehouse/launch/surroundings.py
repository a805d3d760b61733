"""The command line and the environment variables of an app's process: clean, never the server's own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from bakehouse.launch.base import Environment
from bakehouse.launch.isolate import APPHOST, Places
from bakehouse.launch.process import MARKER


def app_argv(python: Path) -> list[str]:
    """How the child is started: the app's own interpreter runs our host by path."""
    return [str(python), "-I", "-X", "utf8", str(APPHOST / "__main__.py")]


def marker(home: Path) -> str:
    """What the instances of one data directory carry in their environment, so that a later server finds them."""
    return hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:16]


def app_environ(
    own: dict[str, str],
    environment: Environment,
    places: Places,
    instance_id: str,
    home: Path,
    socket_fd: int,
    gpus: Sequence[int] = (),
) -> dict[str, str]:
    """The variables of one instance: defaults, then the app's *own*, then what an app may not change."""
    return {
        "PATH": f"{environment.python.parent}:/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "VIRTUAL_ENV": str(environment.python.parent.parent),
        **own,
        "HOME": str(places.work),
        "TMPDIR": str(places.temp),
        "FILE_CACHE_DIR": str(places.cache),
        "XDG_CACHE_HOME": str(places.cache),
        "CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus)),
        MARKER: f"{marker(home)}:{instance_id}",
        "BAKEHOUSE_FD": str(socket_fd),
    }
