"""The server's own secret: one file outside the database, from which every other key is derived."""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path

SIZE = 32


class ServerSecret:
    """32 random bytes and the keys that follow from them. Never logged, never sent."""

    __slots__ = ("_root",)

    def __init__(self, root: bytes) -> None:
        if len(root) != SIZE:
            raise ValueError(f"the server's secret must be {SIZE} bytes")
        self._root = root

    def __repr__(self) -> str:
        return "ServerSecret(...)"

    def key(self, purpose: str) -> bytes:
        """The 32-byte key for *purpose*; keys of different purposes say nothing about each other."""
        return hmac.new(self._root, purpose.encode(), hashlib.sha256).digest()

    @classmethod
    def load(cls, path: Path) -> ServerSecret:
        """Read *path*, or make it (mode 0600) when it is missing. Safe when two servers start at once.

        Raises ValueError when the file holds something else.
        """
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
        try:
            if not path.exists():
                _write(temporary, os.urandom(SIZE))
                # A link fails where the file exists by now, and then the other server's secret is the one.
                os.link(temporary, path)
                _sync(path.parent)
        except FileExistsError:
            return cls.load(path)
        finally:
            temporary.unlink(missing_ok=True)
        return cls(path.read_bytes())


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
