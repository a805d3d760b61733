"""What goes wrong between a client and a server, beside the errors of `inferlet.errors`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inferlet.errors import HostError, error_of


class ConnectionLost(HostError):
    """The server could not be reached, or went away. Processes go on; attach to them again."""

    code = "connection_lost"


class Unauthorized(HostError):
    """The server knows no such key."""

    code = "unauthorized"


class Forbidden(HostError):
    """The key lacks a scope."""

    code = "insufficient_scope"


class ProgramFailed(HostError):
    """A process ended with an error. ``limit`` names the limit that it hit, ``traceback`` is the program's own."""

    def __init__(self, message: str, code: str, *, limit: str | None = None, traceback: str = "") -> None:
        super().__init__(message, code)
        self.limit = limit
        self.traceback = traceback


_OWN = {cls.code: cls for cls in (ConnectionLost, Unauthorized, Forbidden)}


def error_from(error: Mapping[str, Any]) -> HostError:
    """The ``error`` object of an answer as an exception."""
    code, message = str(error.get("code", "host_error")), str(error.get("message", ""))
    kind = _OWN.get(code)
    return error_of(code, message) if kind is None else kind(message)


def failure_from(error: Mapping[str, Any]) -> ProgramFailed:
    """The ``error`` object of a process's end."""
    limit = error.get("limit")
    return ProgramFailed(
        str(error.get("message", "")),
        str(error.get("code", "failed")),
        limit=None if limit is None else str(limit),
        traceback=str(error.get("traceback", "")),
    )
