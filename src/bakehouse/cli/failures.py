"""How a command ends badly: one line that says the way out, and an exit status that scripts can use.

0    done
1    the task (or build) failed, or the check found something
2    the command was wrong, or the server refused what it asked for
3    the server cannot be reached, or does not accept the key
130  interrupted
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    OK = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    INTERRUPTED = 130


class Failure(Exception):
    """The command ends here. *hint* is a second line: what to do next."""

    def __init__(self, message: str, status: Exit = Exit.USAGE, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.hint = hint
