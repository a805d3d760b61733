"""The guest SDK and its WIT files, from the package ``inferlet`` that is installed beside us."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bakehouse.inferlets.bakery.problems import BuildFailed


@dataclass(frozen=True, slots=True)
class Sdk:
    """What goes into every program: the package, by path, and the world that a program is built for."""

    package: dict[str, bytes]
    world: dict[str, bytes]


@cache
def find_sdk() -> Sdk:
    """The SDK of this installation, read once by a process. It is not imported. Raises `BuildFailed`."""
    spec = importlib.util.find_spec("inferlet")
    if spec is None or spec.origin is None:
        raise BuildFailed("the inferlet SDK is not installed here: pip install 'bakehouse[inferlets]'")
    package = Path(spec.origin).parent
    # A wheel has the WIT files inside the package; a checkout has them beside its sources.
    for wit in (package / "wit", package.parents[1] / "wit"):
        if (wit / "inferlet.wit").is_file():
            world = [*wit.glob("*.wit"), *wit.glob("deps/**/*.wit")]
            return Sdk(_read(package.parent, _sources(package)), _read(wit, sorted(world)))
    raise BuildFailed(f"the inferlet SDK in {package} has no WIT files")


def _sources(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def _read(folder: Path, files: list[Path]) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
