"""The data directory of one server: made, locked, and told what is where."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

from bakehouse.core.errors import Conflict

_LOOK_SECONDS = 0.05
"""Longer than a look at the lock takes."""


class Home:
    """``BAKEHOUSE_HOME`` while a server runs on it. The lock goes with the process, however it ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def lock(self) -> None:
        """Make the directory and lock it; Conflict when another server runs on it."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not _locked(descriptor):
            os.close(descriptor)
            raise Conflict(
                f"another server is running on {self.path}; stop it, or choose another directory with --home"
            )
        self._lock = descriptor

    def unlock(self) -> None:
        """Let the next server have it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def endpoint(self) -> Path:
        """Tells commands of the same user where the server is: url, pid, and the first key while it is valid."""
        return self.path / "endpoint.json"

    def write_endpoint(self, url: str, key: str | None, *, new_models: bool = False) -> None:
        """Replace the endpoint file. A key that it held before stays, because only hashes are kept elsewhere.

        *new_models*: the server takes models that are recorded while it runs.
        """
        value = {"url": url, "key": key or self._known_key(), "pid": os.getpid(), "new_models": new_models}
        fresh = self.endpoint.with_suffix(".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(value, file)
        fresh.replace(self.endpoint)

    def _known_key(self) -> str | None:
        key: str | None = self._written().get("key")
        return key

    def _written(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self.endpoint.read_text())
        except (FileNotFoundError, ValueError):
            return {}
        return found

    def running(self) -> bool:
        """Whether a server runs on it, this process's own included."""
        try:
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            return False
        finally:
            os.close(descriptor)

    def takes_new_models(self) -> bool:
        """Whether the server that runs takes models that are recorded meanwhile."""
        return bool(self._written().get("new_models"))


def _locked(descriptor: int) -> bool:
    """Whether it could be locked: now, or when somebody who only looked, see `Home.running`, has let go."""
    for again in (True, False):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if again:
                time.sleep(_LOOK_SECONDS)
        else:
            return True
    return False
