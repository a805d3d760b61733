"""The guest SDK and its WIT files, from the package ``inferlet`` that is installed beside us."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bakehouse.inferlets.bakery.problems import BuildFailed


@dataclass(frozen=True, slots=True)
class Sdk:
    """What goes into every program: the package, by path, and the world that a program is built for."""

    package: dict[str, bytes]
    world: dict[str, bytes]

    def names(self, module: str) -> frozenset[str] | None:
        """What can be imported from the SDK's *module*, dotted; None where there is no such module."""
        path = module.replace(".", "/")
        source = self.package.get(f"{path}/__init__.py") or self.package.get(f"{path}.py")
        if source is None:
            return None
        inside = (name.removeprefix(f"{path}/") for name in self.package if name.startswith(f"{path}/"))
        return frozenset(_bound(ast.parse(source).body)) | {
            name.partition("/")[0].removesuffix(".py") for name in inside
        }


def _bound(body: Iterable[ast.AST]) -> Iterator[str]:
    """Names that statements at the top level give something to."""
    for statement in body:
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield statement.name
            case ast.Import() | ast.ImportFrom():
                yield from ((alias.asname or alias.name).partition(".")[0] for alias in statement.names)
            case ast.Assign() | ast.AnnAssign():
                targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                yield from (node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name))
            case ast.If() | ast.Try() | ast.With():
                yield from _bound(ast.iter_child_nodes(statement))


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
