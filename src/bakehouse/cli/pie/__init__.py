"""The ``pie`` command: programs that run beside the model, on this machine or on a server."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]

#: `failures.Exit`'s, for Ctrl-C while that is still being loaded.
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its status."""
    try:
        from bakehouse.cli.ending import run_commands
        from bakehouse.cli.pie.app import app
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    run_commands(app, arguments)
