"""The commands: ``bakehouse``, ``pie`` and ``bakery``. Each loads what it needs when it runs."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """The ``bakehouse`` command: see `bakehouse.cli.app`."""
    # Imported here, so that the other commands do without its parts.
    from bakehouse.cli.app import main as run

    run(arguments)
