"""Where the guest SDK and its WIT files are: in the package ``inferlet`` that is installed beside us."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from bakehouse.inferlets.bakery.problems import BuildFailed


@dataclass(frozen=True, slots=True)
class Sdk:
    """The folder of the package, and the folder of the world that a program is built for."""

    package: Path
    wit: Path

    def files(self) -> dict[str, Path]:
        """What goes into every program, by path below ``sdk/``."""
        return {f"inferlet/{path.relative_to(self.package).as_posix()}": path for path in _sources(self.package)}

    def worlds(self) -> dict[str, Path]:
        """The files of the world, by path below ``wit/``."""
        shown = [*self.wit.glob("*.wit"), *self.wit.glob("deps/**/*.wit")]
        return {path.relative_to(self.wit).as_posix(): path for path in sorted(shown)}


def find_sdk() -> Sdk:
    """The SDK of this installation. It is not imported. Raises `BuildFailed`."""
    spec = importlib.util.find_spec("inferlet")
    if spec is None or spec.origin is None:
        raise BuildFailed(
            "the inferlet SDK is not installed here; `make install` does it, or pip install bakehouse[inferlets]"
        )
    package = Path(spec.origin).parent
    # A wheel has the WIT files inside the package; a checkout has them beside its sources.
    for wit in (package / "wit", package.parents[1] / "wit"):
        if (wit / "inferlet.wit").is_file():
            return Sdk(package, wit)
    raise BuildFailed(f"the inferlet SDK in {package} has no WIT files")


def _sources(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)
