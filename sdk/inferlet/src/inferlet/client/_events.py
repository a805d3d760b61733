"""What a process sends: small values that `match` can take apart. ``seq`` counts a process's events from 1 on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inferlet.client._errors import ProgramFailed, failure_from
from inferlet.client._frames import BadFrame


@dataclass(frozen=True)
class Message:
    """The program called ``session.send``."""

    text: str
    seq: int = 0


@dataclass(frozen=True)
class Stdout:
    """Something that the program printed: a line with its end, or a part of one."""

    text: str
    seq: int = 0


@dataclass(frozen=True)
class Stderr:
    """The same for standard error."""

    text: str
    seq: int = 0


@dataclass(frozen=True)
class File:
    """The program called ``session.send_file``."""

    data: bytes
    seq: int = 0


@dataclass(frozen=True)
class Gap:
    """So many events are gone: nobody was attached, or this client read too slowly, and newer ones took their place."""

    missed: int
    seq: int = 0


@dataclass(frozen=True)
class Ended:
    """The last event. ``error`` is None where the program returned ``result``."""

    result: str
    error: ProgramFailed | None = None
    seq: int = 0


Event = Message | Stdout | Stderr | File | Gap | Ended

_TEXTS: dict[str, type[Message] | type[Stdout] | type[Stderr]] = {
    "message": Message,
    "stdout": Stdout,
    "stderr": Stderr,
}


def event_from(frame: Mapping[str, Any], data: bytes = b"") -> Event | None:
    """The event that *frame* tells, with the *data* that followed it; None for a kind that is not known here.

    Raises `BadFrame`.
    """
    try:
        return _event(frame, data)
    except (KeyError, TypeError, ValueError) as error:
        raise BadFrame(f"an event that cannot be read: {error!r}") from error


def _event(frame: Mapping[str, Any], data: bytes) -> Event | None:
    kind, seq = frame["event"], int(frame["seq"])
    if kind in _TEXTS:
        return _TEXTS[kind](str(frame["text"]), seq)
    if kind == "file":
        return File(data, seq)
    if kind == "gap":
        return Gap(int(frame["missed"]), seq)
    if kind == "ended":
        error = frame.get("error")
        return Ended(str(frame.get("result", "")), None if error is None else failure_from(error), seq)
    return None
