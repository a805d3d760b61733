"""What a call of a guest, or a launch, can fail with beside the errors of the engine, in one tree.

InferletError
├── BadProgram        no component of ours, a manifest that says nothing, a version that is none; ``field`` names it
├── NoSuchProgram     nothing of that name and version is installed
├── NotRunning        no instance of that id for this owner, or it has ended
├── Refused           over a limit of a program, an owner or this host; the text names the limit and its value
├── Attached          an instance has its client already
├── SpawnFailed       a child could not be started, or ended with an error; the text is its
├── McpFailed         an MCP server answered with an error, or could not be reached
└── Ended             the instance is ending: it was cancelled, or hit a limit. Never reaches a guest
"""

from __future__ import annotations


class InferletError(Exception):
    """Root of the tree. ``code`` is stable for programs, the text is for people and says the way out."""

    code = "inferlet_error"

    def __init__(self, detail: str, *, field: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field


class BadProgram(InferletError):
    code = "bad_program"


class NoSuchProgram(InferletError):
    code = "not_found"


class NotRunning(InferletError):
    code = "not_found"


class Refused(InferletError):
    code = "limit_exceeded"


class Attached(InferletError):
    code = "attached"


class SpawnFailed(InferletError):
    code = "spawn_failed"


class McpFailed(InferletError):
    code = "mcp_error"


class Ended(InferletError):
    code = "cancelled"
