"""What the tests of the SDK share: an outlet that keeps what it is told, and services without a sandbox."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal

from bakehouse.inferlets.base import Launch, McpServers, Messaging, Outcome
from bakehouse.inferlets.calls.native import NativeHost
from bakehouse.inferlets.errors import NoSuchProgram

Open = Callable[..., AbstractContextManager[NativeHost]]


@dataclass
class Seen:
    """An outlet that keeps what it is told."""

    messages: list[str] = field(default_factory=list)
    files: list[bytes] = field(default_factory=list)

    def message(self, text: str) -> None:
        self.messages.append(text)

    def file(self, data: bytes) -> None:
        self.files.append(data)

    def output(self, stream: Literal["stdout", "stderr"], text: str) -> None:
        raise AssertionError(f"a native program prints by itself: {text}")

    def ended(self, outcome: Outcome) -> None:
        raise AssertionError(f"nobody ends a native program: {outcome}")


@dataclass
class Alone:
    """Services of a place where no program is installed."""

    messaging: Messaging
    mcp: McpServers

    def spawn(self, parent: Launch, program: str, arguments: tuple[str, ...]) -> Future[str]:
        raise NoSuchProgram(f"{program} is not installed for {parent.owner}")
