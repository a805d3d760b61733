"""What the launch room is given and what it hands on: settings, environments, errors."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from bakehouse.core.app import Limits, Version
from bakehouse.core.executor import Failure

MEBI = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Environment:
    """Where a version is ready to run: its interpreter and its unpacked files, both read-only for the app."""

    python: Path
    app_dir: Path

    def resolved(self) -> Environment:
        """The same with real directories, as mounts need them; the interpreter may stay a link in its venv."""
        return Environment(self.python.parent.resolve() / self.python.name, self.app_dir.resolve())


def _instances() -> int:
    return max(4, (os.cpu_count() or 2) * 2)


def _machine_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _default_limits() -> Limits:
    return Limits(memory=_machine_memory() * 3 // 4, processes=512, file_size=8 * 1024 * MEBI)


@dataclass(frozen=True, slots=True)
class LaunchSettings:
    """Times are seconds, sizes are bytes.

    ``home`` is the server's data directory: instances get directories below it and see nothing else of it.
    ``limits`` hold where an app names none. ``memory_budget`` bounds what all instances use together.
    ``isolation`` is ``auto`` (all that the machine offers) or ``off``. ``gpus`` are the device numbers to hand out.
    """

    home: Path
    max_instances: int = field(default_factory=_instances)
    idle_timeout: float = 600.0
    startup_timeout: float = 60.0
    setup_timeout: float = 900.0
    cancel_grace: float = 30.0
    term_grace: float = 5.0
    stop_grace: float = 5.0
    limits: Limits = field(default_factory=_default_limits)
    memory_budget: int = field(default_factory=lambda: _machine_memory() * 9 // 10)
    prefetch: int = 16
    isolation: str = "auto"
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Hooks:
    """What wiring connects the executor to.

    ``prepare`` makes an environment ready (slow the first time); what it raises fails the calls that wait for it.
    ``environ(owner_id, version)`` gives the app's own variables: its manifest's and the owner's secrets.
    ``session_lost(session_id, reason)`` is told when the instance of a session is gone.
    ``instance_log(instance_id, version_id, stream, lines)`` takes what belongs to no single call.
    """

    prepare: Callable[[Version], Awaitable[Environment]]
    environ: Callable[[str, Version], Awaitable[dict[str, str]]]
    session_lost: Callable[[str, str], None] = field(default=lambda session_id, reason: None)
    instance_log: Callable[[str, str, str, list[str]], None] = field(default=lambda *told: None)


class LaunchError(Exception):
    """A child could not be brought up. ``stage`` is ``start``, ``import``, ``setup``, ``protocol`` or ``timeout``."""

    def __init__(self, stage: str, failure: Failure) -> None:
        super().__init__(failure.message)
        self.stage = stage
        self.failure = failure
