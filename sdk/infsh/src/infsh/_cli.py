"""The ``infsh`` command; without the extra ``cli`` it says how to get it."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point: exit status 0 done, 1 the task failed, 2 wrong use, 3 no server or no permission."""
    try:
        from . import _commands
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in ("typer", "rich", "click"):
            raise
        sys.stderr.write(f'the infsh command needs {error.name}: pip install "bakehouse-infsh[cli]"\n')
        sys.exit(2)
    _commands.app()
