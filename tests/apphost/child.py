"""Drives a real child over a real socketpair, as the server does."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bakehouse.apphost import messages

MAIN = Path(messages.__file__).with_name("__main__.py")
HEAD = "from infsh import *\nimport asyncio, sys, os, time, threading\nfrom typing import *\n"


class Child:
    """One app host process; ``seen`` keeps every message that arrived."""

    def __init__(self, root: Path, python: str = sys.executable) -> None:
        self.root = root
        self.dirs = {name: str(root / name) for name in ("work", "temp", "cache", "outbox")}
        for folder in self.dirs.values():
            Path(folder).mkdir(parents=True, exist_ok=True)
        ours, theirs = socket.socketpair()
        ours.settimeout(30)
        self.socket = ours
        self.process = subprocess.Popen(
            [python, "-I", "-X", "utf8", str(MAIN)],
            env={"BAKEHOUSE_FD": str(theirs.fileno()), "PATH": os.environ["PATH"], "HOME": str(root)},
            pass_fds=[theirs.fileno()],
            cwd=self.dirs["work"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        theirs.close()
        self.decoder = messages.Decoder(messages.CHILD_MESSAGES)
        self.seen: list[messages.Message] = []
        self._read = 0

    def send(self, *sent: messages.Message) -> None:
        self.socket.sendall(b"".join(map(messages.encode, sent)))

    def hello(self, app_dir: Path, mode: str = "serve", **more: Any) -> None:
        ids = {"app_id": "app_1", "app_ref": "me/app@1", "version_id": "ver_1", "owner_id": "own_1"}
        self.send(messages.host_hello(mode, str(app_dir), self.dirs, ids, **more))

    def next(self, kind: str, where: Callable[[messages.Message], bool] = lambda m: True) -> messages.Message:
        """The next message of this type that fits; earlier others are passed over (they stay in ``seen``)."""
        while True:
            while self._read < len(self.seen):
                message = self.seen[self._read]
                self._read += 1
                if message["t"] == kind and where(message):
                    return message
            if not self.pump():
                raise AssertionError(f"the child ended before {kind!r}: {self.seen[-3:]} {self.tail()}")

    def final(self, task_id: str = "t1") -> messages.Message:
        """How a call ended."""
        while True:
            for message in self.seen[self._read :]:
                self._read += 1
                if message.get("id") == task_id and message["t"] in ("result", "error", "cancelled"):
                    return message
            if not self.pump():
                raise AssertionError(f"the child ended before {task_id}: {self.seen[-3:]} {self.tail()}")

    def pump(self) -> bool:
        """Read once; False at the end."""
        chunk = self.socket.recv(1 << 18)
        self.seen += self.decoder.feed(chunk)
        return bool(chunk)

    def to_end(self) -> int:
        """Read all that is left; the exit status."""
        with contextlib.suppress(ConnectionResetError):
            while self.pump():
                pass
        return self.process.wait(30)

    def tail(self) -> str:
        self.process.kill()
        out, err = self.process.communicate()
        return (out + err).decode()

    def call(
        self, function: str = "", task_id: str = "t1", context: dict[str, Any] | None = None, **value: Any
    ) -> None:
        self.send(messages.call(task_id, 1, function, value, context))

    def lines(self, task_id: str | None = "t1", stream: str | None = None) -> list[str]:
        return [
            line
            for message in self.seen
            if message["t"] == "log" and message.get("id") == task_id and stream in (None, message["stream"])
            for line in message["lines"]
        ]

    def close(self) -> None:
        self.socket.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


class Children:
    """Makes apps and children, and ends them all."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.made: list[Child] = []

    def app(self, source: str, head: str = HEAD) -> Path:
        folder = self.root / f"app{len(list(self.root.iterdir()))}"
        folder.mkdir()
        (folder / "inference.py").write_text(head + textwrap.dedent(source))
        return folder

    def start(self, source: str = "", *, head: str = HEAD, python: str = sys.executable, **hello: Any) -> Child:
        child = Child(self.root / f"child{len(self.made)}", python)
        self.made.append(child)
        child.hello(self.app(source, head), **hello)
        return child

    def serve(self, source: str, **options: Any) -> Child:
        child = self.start(source, **options)
        child.next("ready")
        return child


def children(root: Path) -> Iterator[Children]:
    made = Children(root)
    yield made
    for child in made.made:
        child.close()
