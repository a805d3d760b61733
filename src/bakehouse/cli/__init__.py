"""The commands: ``bakehouse``, ``pie`` and ``bakery``. Each loads what it needs when it runs."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]

#: `failures.Exit`'s, for Ctrl-C while that is still being loaded.
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> None:
    """The ``bakehouse`` command: see `bakehouse.cli.app`."""
    # Imported here, so that the other commands do without its parts.
    try:
        from bakehouse.cli.app import main as run
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    run(arguments)
