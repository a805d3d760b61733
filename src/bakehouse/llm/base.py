"""What the executor of inferlets is given by wiring."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from bakehouse.core.app import Version
from bakehouse.core.file import FileRecord
from bakehouse.core.task import Task
from bakehouse.inferlets.base import Limits
from bakehouse.inferlets.remote import RemoteHost


class Node(Protocol):
    """Where instances run; it may be starting, and it may die."""

    @property
    def up(self) -> bool:
        """Whether it takes launches at once."""
        ...

    @property
    def down(self) -> str:
        """Why it will not come up by itself; empty while it is up, or may be soon."""
        ...

    def on_change(self, wake: Callable[[], None]) -> None: ...

    async def host(self) -> RemoteHost:
        """The host of now; waits while it starts. Raises `HostLost` where it will not."""
        ...


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the platform does for a running inferlet.

    ``prepare`` sees to it that a version's program is installed at the node and raises what a build raises;
    ``username`` names an owner; ``keep_file`` stores the n-th file that a task sent; ``file`` gives the bytes behind a
    URI of this server, at most so many. It raises NotFound and TooLarge.
    """

    prepare: Callable[[Version], Awaitable[None]]
    username: Callable[[str], Awaitable[str]]
    keep_file: Callable[[Task, bytes, int], Awaitable[tuple[FileRecord, str]]]
    file: Callable[[str, int], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class InferletSettings:
    """``most`` instances at one time, ``per_owner`` of them of one owner; ``limits`` of each.

    ``messages`` and ``files``: bytes that one task may send its caller in all; they are kept as long as the task is.
    """

    most: int = 512
    per_owner: int = 128
    limits: Limits = field(default_factory=Limits)
    messages: int = 16 << 20
    files: int = 1 << 30
