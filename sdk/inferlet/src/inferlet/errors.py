"""What a host answers when it cannot do what it was asked."""

from __future__ import annotations


class HostError(RuntimeError):
    """A call failed. ``code`` is stable for programs, the text is for people."""

    code: str = "host_error"

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code


class BadRequest(HostError, ValueError):
    """A value cannot be accepted; the text names it."""

    code = "bad_request"


class NotFound(HostError, LookupError):
    """No model, context, matcher, adapter, program or server of this name, or it was released."""

    code = "not_found"


class NameTaken(HostError):
    """A live thing has this name."""

    code = "name_taken"


class LimitExceeded(HostError):
    """Over a limit of this program or its owner; the text names the limit."""

    code = "limit_exceeded"


class OutOfPages(HostError):
    """The KV pool cannot hold this."""

    code = "out_of_pages"


class Cancelled(HostError):
    """What was waited for was given up, or the generation's context released."""

    code = "cancelled"


class Locked(HostError):
    """Another program has the lock of what was to be changed."""

    code = "locked"


class DeadlineExceeded(HostError, TimeoutError):
    """Its time was over before its result was there."""

    code = "deadline_exceeded"


class SpawnFailed(HostError):
    """The spawned program could not be started, or ended with an error; the text is its."""

    code = "spawn_failed"


class McpError(HostError):
    """An MCP server answered with an error, or could not be reached."""

    code = "mcp_error"


class NotConnected(HostError):
    """The program runs outside a sandbox and no host was chosen."""

    code = "not_connected"

    def __init__(self) -> None:
        super().__init__(
            "this program has no host: build it with `bakery build` and launch it, run it with "
            "`pie run --native main.py`, or call inferlet.connect(...) first"
        )


_BY_CODE: dict[str, type[HostError]] = {
    cls.code: cls
    for cls in (
        BadRequest,
        NotFound,
        NameTaken,
        LimitExceeded,
        OutOfPages,
        Cancelled,
        Locked,
        DeadlineExceeded,
        SpawnFailed,
        McpError,
    )
}


def error_of(code: str, message: str) -> HostError:
    """The error that *code* stands for; a `HostError` with that code where none does."""
    kind = _BY_CODE.get(code)
    return HostError(message, code) if kind is None else kind(message)
