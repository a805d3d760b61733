"""Which of a project's files go into a program, and what they import from elsewhere."""

from __future__ import annotations

import ast
import difflib
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bakehouse.inferlets.bakery.imports import Import, imports_of
from bakehouse.inferlets.bakery.problems import BadProject, Problem
from bakehouse.inferlets.bakery.project import Project, sandbox_modules
from bakehouse.inferlets.bakery.sdk import find_sdk
from bakehouse.inferlets.bakery.unfit import unfit

_PYTHON = ".".join(map(str, sys.version_info[:2]))
#: Bytes of all files that are no Python.
MAX_DATA = 16 << 20


@dataclass(slots=True)
class Selection:
    """*files* maps paths inside the program to where they are now; *outside* is what they import of others, by file."""

    files: dict[str, Path] = field(default_factory=dict)
    outside: list[tuple[str, Import]] = field(default_factory=list)

    @property
    def imports(self) -> list[str]:
        """Modules that the program cannot do without."""
        return sorted({found.name for _, found in self.outside if not found.guarded})

    @property
    def optional(self) -> list[str]:
        """Modules, or names inside of some, that it may do without."""
        return sorted({target for _, found in self.outside for target in found.targets} - set(self.imports))


def select(project: Project) -> Selection:
    """What the entry point imports, directly or not, and all of every package that it imports from.

    Raises `BadProject` for sources that are not Python, and for imports that cannot work in the sandbox.
    """
    walk = _Walk(project)
    walk.reach(Path(project.entry).stem, project.folder / project.entry)
    walk.follow()
    walk.pack()
    if walk.problems:
        raise BadProject(sorted(set(walk.problems)))
    return walk.selection


def check_outside(selection: Selection, dependencies: frozenset[str]) -> None:
    """Every import finds its module: in the standard library or among *dependencies*. Raises `BadProject`."""
    known = sandbox_modules() | dependencies | {"inferlet"}
    problems = [
        Problem(
            file,
            found.line,
            f"import {found.name}: there is no such module; list what brings it in requirements.txt, or in "
            "[project] dependencies of pyproject.toml",
        )
        for file, found in selection.outside
        if not found.guarded and found.name.partition(".")[0] not in known
    ]
    problems += _missing_in_sdk(selection)
    if problems:
        raise BadProject(sorted(set(problems)))


def _missing_in_sdk(selection: Selection) -> Iterator[Problem]:
    """Misspelt names would be found at launch only."""
    sdk = find_sdk()
    for file, found in selection.outside:
        if found.guarded or found.name.partition(".")[0] != "inferlet":
            continue
        names = sdk.names(found.name)
        if names is None:
            yield Problem(file, found.line, f"import {found.name}: the SDK has no such module")
        for name in set(found.names) - (names or {*found.names}) - {"*"}:
            near = difflib.get_close_matches(name, names or ())
            hint = f"; did you mean {near[0]}?" if near else ""
            yield Problem(file, found.line, f"from {found.name} import {name}: the SDK has no such name{hint}")


class _Walk:
    def __init__(self, project: Project) -> None:
        self._project = project
        self._modules = project.modules()
        self._reached: dict[str, Path] = {}
        self._todo: list[str] = []
        self.selection = Selection()
        self.problems: list[Problem] = []

    def reach(self, module: str, path: Path) -> None:
        if module not in self._reached:
            self._reached[module] = path
            self._todo.append(module)

    def follow(self) -> None:
        while self._todo:
            module = self._todo.pop()
            path = self._reached[module]
            for found in self._imports(path, module):
                if found.name.startswith("."):
                    self._beyond(self._shown(path), found)
                elif not self._own(found):
                    self._outside(self._shown(path), found)
                else:
                    self._hidden(self._shown(path), found)

    def _beyond(self, file: str, found: Import) -> None:
        if not found.guarded:
            text = f"from {found.name} import: {file} is in no package that far up; write the import without the dots"
            self.problems.append(Problem(file, found.line, text))

    def _hidden(self, file: str, found: Import) -> None:
        """Which of the two a launch would find depends on what is loaded before."""
        top = found.name.partition(".")[0]
        if top in self._modules and top in sandbox_modules() | {"inferlet"}:
            whose = "the SDK" if top == "inferlet" else "Python"
            text = f"import {top}: {whose} has a module of this name, which hides the project's own; rename that"
            self.problems.append(Problem(file, found.line, text))

    def _own(self, found: Import) -> bool:
        """Whether it is the project's own; if so, it and the packages above it are reached."""
        for target in found.targets:
            parts = target.split(".")
            for end in range(1, len(parts) + 1):
                name = ".".join(parts[:end])
                if name in self._modules:
                    self.reach(name, self._modules[name])
        top = found.name.partition(".")[0]
        return top in self._modules or any(name.startswith(f"{top}.") for name in self._modules)

    def _outside(self, file: str, found: Import) -> None:
        self.selection.outside.append((file, found))
        for target in () if found.guarded else found.targets:
            reason = unfit(target)
            if reason:
                self.problems.append(Problem(file, found.line, f"import {target}: {reason}"))
                return

    def pack(self) -> None:
        """Reached modules, and their packages whole: what a package imports by computed names is inside it mostly."""
        packages = {module.partition(".")[0] for module, path in self._reached.items() if self._in_package(path)}
        for path in self._reached.values():
            self._take(path)
        size = 0
        for root in self._project.roots:
            for package in sorted(packages):
                for path in _files(root / package):
                    self._take(path)
                    size += 0 if path.suffix == ".py" else path.stat().st_size
        if size > MAX_DATA:
            text = f"its packages hold {size} bytes of data, a program at most {MAX_DATA}"
            self.problems.append(Problem(".", None, text))

    def _in_package(self, path: Path) -> bool:
        return path.parent not in self._project.roots

    def _take(self, path: Path) -> None:
        if not path.resolve().is_relative_to(self._project.folder.resolve()):
            self.problems.append(Problem(self._shown(path), None, "links to a place outside of the project"))
            return
        root = next(root for root in reversed(self._project.roots) if path.is_relative_to(root))
        inside = path.relative_to(root).as_posix()
        if self.selection.files.setdefault(inside, path) == path and path.suffix == ".py":
            self._parsed(path)

    def _parsed(self, path: Path) -> ast.Module | None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(path.read_bytes(), self._shown(path))
                # Some errors are no matter of the grammar, such as a return outside of functions.
                compile(tree, self._shown(path), "exec", dont_inherit=True)
            return tree
        except SyntaxError as error:
            text = f"{type(error).__name__}: {error.msg} (as Python {_PYTHON} reads it, which runs this tool)"
            self.problems.append(Problem(self._shown(path), error.lineno, text))
        except ValueError as error:  # zero bytes
            self.problems.append(Problem(self._shown(path), None, f"no Python source: {error}"))
        except (RecursionError, MemoryError):
            self._too_deep(path)
        return None

    def _imports(self, path: Path, module: str) -> list[Import]:
        tree = self._parsed(path)
        try:
            return imports_of(tree, module, is_package=path.name == "__init__.py") if tree else []
        except RecursionError:
            self._too_deep(path)
            return []

    def _too_deep(self, path: Path) -> None:
        self.problems.append(Problem(self._shown(path), None, "its parts are nested too deeply to be read"))

    def _shown(self, path: Path) -> str:
        return path.relative_to(self._project.folder).as_posix()


def _files(folder: Path) -> Iterator[Path]:
    """All below *folder*, which may not be there, but for hidden things and byte code."""
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name == "__pycache__":
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _files(path)
        elif path.is_file():
            yield path
