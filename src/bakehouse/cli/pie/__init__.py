"""The ``pie`` command: programs that run beside the model, on this machine or on a server."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its status."""
    from bakehouse.cli.ending import run_commands
    from bakehouse.cli.pie.app import app

    run_commands(app, arguments)
