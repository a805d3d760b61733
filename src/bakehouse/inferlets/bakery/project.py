"""A user's project: its manifest, its entry point, its modules and what they need."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bakehouse.inferlets.bakery.problems import BadProject, Problem
from bakehouse.inferlets.errors import BadProgram
from bakehouse.inferlets.manifest import FILENAME, Manifest

ENTRIES = ("main.py", "app.py")
_EXAMPLE = '[package]\nname = "my-program"\nversion = "0.1.0"'
_SKIPPED = {"__pycache__", "node_modules", "venv", "env", "build", "dist"}
#: The SDK is part of every program, so a project may name it, for editors, without needing it.
_SDK = re.compile(r"bakehouse[-_.]inferlet\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Project:
    """*entry* is relative to *folder*. *requirements* are lines as pip reads them."""

    folder: Path
    entry: str
    manifest: Manifest
    manifest_text: str
    requirements: tuple[str, ...]

    @property
    def roots(self) -> tuple[Path, ...]:
        """Where top-level modules lie."""
        source = self.folder / "src"
        is_layout = source.is_dir() and not (source / "__init__.py").exists()
        return (self.folder, source) if is_layout else (self.folder,)

    def modules(self) -> dict[str, Path]:
        """Every module that the project could import of itself, by its dotted name. Earlier roots win."""
        found: dict[str, Path] = {}
        for root in self.roots:
            for path in _sources(root):
                found.setdefault(_name(path.relative_to(root)), path)
        return found


def read_project(source: Path) -> Project:
    """The project in the folder *source*, or around the file *source*. Raises `BadProject`."""
    if not source.exists():
        raise BadProject([Problem(str(source), None, "there is no such file or folder")])
    folder = source if source.is_dir() else source.parent
    entry = entry_of(folder) if source.is_dir() else _given_entry(source)
    text, manifest = _manifest(folder, source)
    return Project(folder, entry, manifest, text, _requirements(folder))


def _given_entry(source: Path) -> str:
    if source.suffix != ".py":
        raise BadProject([Problem(source.name, None, "a program is a Python file (.py), or a folder with one")])
    return source.name


def entry_of(folder: Path) -> str:
    """The file of the program in *folder* by which it begins. Raises `BadProject`."""
    for name in ENTRIES:
        if (folder / name).is_file():
            return name
    single = sorted(path.name for path in folder.glob("*.py"))
    if len(single) == 1:
        return single[0]
    found = f"it has {', '.join(single)}" if single else "it has no Python file"
    raise BadProject(
        [Problem(str(folder), None, f"no entry point: a program is main.py, app.py or the only .py; {found}")]
    )


def _manifest(folder: Path, source: Path) -> tuple[str, Manifest]:
    path = folder / FILENAME
    if not path.is_file():
        text = f"package.name: there is no {FILENAME} for {source.name}; write one:\n{_EXAMPLE}"
        raise BadProject([Problem(FILENAME, None, text)], field="package.name")
    try:
        text = path.read_text(encoding="utf-8")
        return text, Manifest.parse(text)
    except UnicodeDecodeError as error:
        raise BadProject([Problem(FILENAME, None, f"not UTF-8: {error.reason}")]) from None
    except BadProgram as error:
        said = error.detail.removeprefix(f"{FILENAME}: ")
        raise BadProject([Problem(FILENAME, _line(text, error, said), said)], field=error.field) from None


def _line(text: str, error: BadProgram, said: str) -> int | None:
    """Where the field that *error* names stands; where it is missing, its section."""
    if by_parser := re.search(r"at line (\d+)", said):
        return int(by_parser.group(1))
    section, _, key = (error.field or "").partition(".")
    found = None
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        header = re.match(r"\s*\[\s*([\w.-]+)", line)
        if header:
            path = header.group(1)
            inside = path == section
            found = number if inside or path == f"{section}.{key.partition('.')[0]}" else found
        elif inside and re.match(rf"\s*[\"']?{re.escape(key.partition('.')[0])}[\"']?\s*[=.]", line):
            return number
        elif not section and found is None:
            return None
    return found


def _requirements(folder: Path) -> tuple[str, ...]:
    """Of ``requirements.txt`` and of ``[project] dependencies`` in ``pyproject.toml``, without our own SDK."""
    lines = [*_from_text(folder / "requirements.txt"), *_from_toml(folder / "pyproject.toml")]
    return tuple(line for line in lines if not _SDK.match(line))


def _from_text(path: Path) -> Iterator[str]:
    if path.is_file():
        bare = (re.sub(r"(^|\s)#.*", "", line).strip() for line in path.read_text(encoding="utf-8").splitlines())
        yield from (line for line in bare if line)


def _from_toml(path: Path) -> list[str]:
    if not path.is_file():
        return []
    try:
        project = tomllib.loads(path.read_text(encoding="utf-8")).get("project", {})
    except tomllib.TOMLDecodeError as error:
        raise BadProject([Problem(path.name, None, f"no TOML: {error}")]) from None
    if not isinstance(project, dict):
        raise BadProject([Problem(path.name, None, "project: must be a table")])
    if "dependencies" in project.get("dynamic", []):
        raise BadProject([Problem(path.name, None, "dynamic dependencies cannot be read; list them")])
    dependencies = project.get("dependencies", [])
    if not isinstance(dependencies, list) or not all(isinstance(each, str) for each in dependencies):
        raise BadProject([Problem(path.name, None, "project.dependencies: must be a list of texts")])
    return dependencies


def _sources(root: Path) -> Iterator[Path]:
    """Python files below *root*, packages or not, but for hidden folders and environments."""
    for path in sorted(root.iterdir()):
        if path.name.startswith(".") or path.name in _SKIPPED:
            continue
        if path.is_dir() and not path.is_symlink() and not (path / "pyvenv.cfg").exists():
            yield from _sources(path)
        elif path.suffix == ".py" and path.is_file():
            yield path


def _name(path: Path) -> str:
    parts = list(path.with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sandbox_modules() -> frozenset[str]:
    """Top-level modules of the sandbox's own standard library."""
    return frozenset(sys.stdlib_module_names | {"annotationlib", "compression", "pathlib", "tomllib"})
