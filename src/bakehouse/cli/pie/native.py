"""``pie run --native``: the program under this Python, an engine in the same process; breakpoints and prints work."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from bakehouse.cli.failures import Exit, Failure
from bakehouse.cli.pie.terminal import Terminal, feed_lines
from bakehouse.cli.pie.wanted import OWNER, Wanted
from bakehouse.inferlets.base import Failure as Failed
from bakehouse.inferlets.base import Launch, Outcome

if TYPE_CHECKING:
    from bakehouse.wiring.local import Local


def run_native(wanted: Wanted, local: Local, terminal: Terminal) -> int:
    """Run it in this thread and show how it ended; the exit status."""
    import inferlet

    assert wanted.native is not None
    launch = Launch(
        id=f"native-{secrets.token_hex(8)}",
        owner=OWNER,
        username=OWNER,
        program=wanted.native.stem,
        limits=wanted.limits,
    )
    host = local.host.open_native(launch, terminal)
    # Standard input is the program's own here, and the debugger's, unless somebody asks for it.
    if wanted.interactive:
        feed_lines(sys.stdin, host.guest.deliver, terminal.over)
    with inferlet.connect(cast(Any, host)):
        try:
            return terminal.conclude(_outcome(wanted.native, wanted.arguments))
        except KeyboardInterrupt:
            return Exit.INTERRUPTED
        finally:
            terminal.over.set()


def _outcome(path: Path, arguments: tuple[str, ...]) -> Outcome:
    """How the program in *path* ended. Prints the traceback of its exception."""
    from inferlet import _program

    module = _module(path)
    try:
        code = compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
        return Outcome(_program.run(code, module, arguments))
    except Exception as error:
        folder = str(path.resolve().parent)
        trace = _program.user_traceback(error, lambda name: str(Path(name).resolve()).startswith(folder))
        print(trace, end="", file=sys.stderr, flush=True)
        return Outcome(failure=Failed("program_error", _program.error_text(error), traceback=trace))


def _module(path: Path) -> ModuleType:
    """The module that the program becomes, its folder first among those that imports look at, as Python does it."""
    from inferlet import _program

    try:
        name = _program.module_name(path.read_text(encoding="utf-8"), str(path))
    except SyntaxError as error:
        raise Failure(f"{path}:{error.lineno}: {type(error).__name__}: {error.msg}", Exit.FAILED) from error
    except UnicodeDecodeError as error:
        raise Failure(f"{path}: {error}", Exit.FAILED) from error
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.path.insert(0, str(path.resolve().parent))
    return module
