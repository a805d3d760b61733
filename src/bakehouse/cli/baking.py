"""Build a program where `pie run` and a server on the same data directory find what is compiled."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bakehouse.cli.failures import Exit, Failure
from bakehouse.cli.output import Output
from bakehouse.cli.server import settings_for

if TYPE_CHECKING:
    from bakehouse.inferlets.bakery import Built


def bake(source: Path, out: Path | None, home: Path | None, output: Output) -> Built:
    """Build *source* into *out*, or a file of its name here. Raises BadProject, and Failure where the build fails."""
    # Imported here, because the other commands do without.
    from bakehouse.inferlets import bakery
    from bakehouse.wiring.local import FOLDER

    folder = settings_for(home).home / FOLDER
    target = out or Path(f"{bakery.read_project(source).manifest.name}.wasm")
    try:
        return bakery.build(
            source,
            target,
            cache=folder / "bakery",
            compiled=folder / "compiled",
            say=lambda text: output.say(text, "dim"),
        )
    except bakery.BuildFailed as error:
        raise Failure(error.detail, Exit.FAILED) from error
