"""The ``bakehouse`` command."""

from bakehouse.cli.app import main

__all__ = ["main"]
