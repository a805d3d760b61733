"""States of a task: numbers on the wire that also compare equal to their lower-case names."""

from __future__ import annotations

from enum import IntEnum
from typing import Any


class TaskStatus(IntEnum):
    """A task's state.

    Equal to its number and to its lower-case name: ``status == 10`` and ``status == "completed"``. ``str()`` is the
    name, JSON is the number. It hashes as the number, so look names up in lists and tuples, not in sets.
    """

    UNKNOWN = 0
    RECEIVED = 1
    QUEUED = 2
    SCHEDULED = 3
    DISPATCHED = 3
    PREPARING = 4
    SERVING = 5
    SETTING_UP = 6
    RUNNING = 7
    CANCELLING = 8
    UPLOADING = 9
    COMPLETED = 10
    FAILED = 11
    CANCELLED = 12
    REJECTED = 13

    @property
    def terminal(self) -> bool:
        """True when nothing follows."""
        return self in TERMINAL

    @classmethod
    def parse(cls, value: Any) -> TaskStatus:
        """*value* (a number, a name in any case, or a status) as a status; UNKNOWN for what a newer server made up."""
        try:
            return cls(value)
        except ValueError:
            return cls.UNKNOWN

    @classmethod
    def _missing_(cls, value: object) -> TaskStatus | None:
        return cls.__members__.get(value.upper()) if isinstance(value, str) else None

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            found = TaskStatus.__members__.get(other.upper())
            return found is not None and found.value == self.value
        return int.__eq__(self, other) is True

    # int brings a __ne__ of its own, which knows nothing of names.
    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = int.__hash__

    def __str__(self) -> str:
        return self.name.lower()

    def __format__(self, spec: str) -> str:
        return int.__format__(self, spec) if spec[-1:] in tuple("bcdoxXneEfFgG%") else format(str(self), spec)


TERMINAL = (TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.REJECTED)
"""States that nothing follows."""


def parse_status(value: Any) -> TaskStatus:
    """See ``TaskStatus.parse``."""
    return TaskStatus.parse(value)


def is_terminal_status(value: Any) -> bool:
    """Whether *value*, a number, name or status, is one that nothing follows."""
    return TaskStatus.parse(value).terminal
