"""How a command ends: its exit status, and for what a user can put right a line instead of a traceback."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from bakehouse.cli.failures import Exit, Failure


def run_commands(app: typer.Typer, arguments: Sequence[str] | None = None) -> None:
    """Run one command of *app* and exit with its status. A fault of ours keeps its traceback: that is what helps."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name=app.info.name)
    except Exception as error:
        failure = failure_of(error)
        if failure is None:
            raise
        end_with(failure)


def failure_of(error: Exception) -> Failure | None:
    """What to tell the user about *error*; None for one that no user can put right."""
    if isinstance(error, Failure):
        return error
    for module, tell in _TELLERS.items():
        # An error of a module that nobody has loaded cannot be here.
        known = sys.modules.get(module)
        found = tell(error, known) if known is not None else None
        if found is not None:
            return found
    return None


def end_with(failure: Failure) -> NoReturn:
    """Say what went wrong on stderr, and exit."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(Text.assemble(("error: ", "bold red"), failure.message))
    if failure.hint:
        console.print(Text(failure.hint))
    sys.exit(failure.status)


def _ours(error: Any, module: ModuleType) -> Failure | None:
    if not isinstance(error, module.BakehouseError):
        return None
    return Failure(error.detail, Exit.UNREACHABLE if error.status == 503 else Exit.USAGE)


def _engine(error: Any, module: ModuleType) -> Failure | None:
    if not isinstance(error, module.EngineError):
        return None
    return Failure(error.detail, Exit.FAILED if isinstance(error, module.EngineLost) else Exit.USAGE)


def _inferlet(error: Any, module: ModuleType) -> Failure | None:
    return Failure(error.detail) if isinstance(error, module.InferletError) else None


def _remote(error: Any, module: ModuleType) -> Failure | None:
    if not isinstance(error, module.RemoteError):
        return None
    found: Failure = module.refused(error.status, str(error))
    return found


def _client(error: Any, module: ModuleType) -> Failure | None:
    """The client SDK's errors."""
    from bakehouse.cli.remote import field_lines, refused

    if isinstance(error, module.APIError):
        return refused(error.status_code, field_lines(str(error.detail), map(_as_dict, error.errors)))
    if isinstance(error, module.ConnectionFailed | module.StreamInterrupted):
        return Failure(str(error), Exit.UNREACHABLE)
    return Failure(str(error), Exit.FAILED) if isinstance(error, module.InferenceError) else None


def _as_dict(item: Any) -> dict[str, Any]:
    return item if isinstance(item, dict) else vars(item)


_TELLERS = {
    "bakehouse.core.errors": _ours,
    "bakehouse.engine.errors": _engine,
    "bakehouse.inferlets.errors": _inferlet,
    "bakehouse.cli.remote": _remote,
    "inferencesh": _client,
}
