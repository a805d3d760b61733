"""The dependencies of a program: installed by uv into a folder, from wheels of pure Python only."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from bakehouse.inferlets.bakery.problems import BadProject, BuildFailed, Problem
from bakehouse.inferlets.bakery.project import Project

#: What the sandbox runs, and the platform whose environment markers come nearest to it.
PYTHON, PLATFORM = "3.14", "wasm32-pyodide2025"
_COMPILED = {".so", ".pyd", ".dylib", ".dll", ".a"}
_TIMEOUT = 300.0
#: A package or a wheel, or the hashes of one. Options could have code of the project run here: ``-e``, ``--no-binary``.
_PLAIN = re.compile(r"[A-Za-z0-9./]|--hash=|$")
_NOT_FILES = re.compile(r"(?P<name>[\w.-]+?)-[^-]+\.dist-info$")


def install(project: Project, folder: Path) -> frozenset[str]:
    """Install what *project* requires into *folder*; the names of the top-level modules that are there then.

    Nothing of a dependency is executed. Raises `BadProject` for what cannot be had or is not pure Python.
    """
    if not project.requirements:
        return frozenset()
    lines = [line.strip() for each in project.requirements for line in each.splitlines()]
    for line in lines:
        if not _PLAIN.match(line):
            raise BadProject([Problem("requirements", None, f"{line!r}: only packages can be required, no options")])
    folder.mkdir(parents=True)
    _uv(project, lines, folder)
    _check(folder)
    for name in ("bin", "lib", "share", "include"):
        _remove_scripts(folder / name)
    tops = {path.name.partition(".")[0] for path in folder.iterdir() if _is_module(path)}
    if "inferlet" in tops:
        raise BadProject([Problem("requirements", None, "a dependency brings a module `inferlet`, which is the SDK's")])
    return frozenset(tops)


def _uv(project: Project, lines: list[str], folder: Path) -> None:
    import uv

    argv = [
        *(uv.find_uv_bin(), "pip", "install", "--no-config", "--no-progress", "--color", "never"),
        *("--python", sys.executable, "--python-version", PYTHON, "--python-platform", PLATFORM),
        *("--only-binary", ":all:", "--link-mode", "copy", "--target", str(folder), "--requirements", "-"),
    ]
    try:
        done = subprocess.run(
            argv,
            input="\n".join(lines),
            cwd=project.folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BuildFailed(f"the dependencies were not installed within {_TIMEOUT:.0f} s") from None
    if done.returncode:
        text = f"the dependencies cannot be installed for the sandbox, which runs pure Python {PYTHON}"
        raise BadProject([Problem("requirements", None, f"{text}:\n{_reason(done.stderr)}")])


_NO_WHEEL = re.compile(r"all\s+versions\s+of\s+([\w.-]+)\s+have\s+no\s+usable\s+wheels")
_WHEEL_NEEDED = re.compile(r"Wheels are required for `([^`]+)`")


def _reason(said: str) -> str:
    """What uv says, shorter where it goes through all versions of what there is no wheel of."""
    names = sorted(set(_NO_WHEEL.findall(said) or _WHEEL_NEEDED.findall(said)))
    if names:
        return f"no version of {', '.join(names)} is there as a wheel of pure Python"
    return "\n".join(line.rstrip() for line in said.strip().splitlines() if not line.startswith("Using "))[-2000:]


def _check(folder: Path) -> None:
    compiled = {path for path in folder.rglob("*") if path.suffix in _COMPILED}
    if compiled:
        names = ", ".join(sorted({_dist_of(folder, path) for path in compiled}))
        text = f"native code, which the sandbox cannot run, is in: {names}"
        raise BadProject([Problem("requirements", None, text)])


def _dist_of(folder: Path, path: Path) -> str:
    inside = path.relative_to(folder).as_posix()
    for record in folder.glob("*.dist-info/RECORD"):
        if f"{inside}," in record.read_text(encoding="utf-8", errors="replace"):
            match = _NOT_FILES.match(record.parent.name)
            return match.group("name") if match else record.parent.name
    return inside


def _is_module(path: Path) -> bool:
    return path.suffix == ".py" or (path.is_dir() and not path.name.endswith((".dist-info", ".data")))


def _remove_scripts(folder: Path) -> None:
    """Commands and the like, which wheels may bring, are no modules."""
    import shutil

    if folder.is_dir() and not (folder / "__init__.py").exists() and not any(folder.rglob("*.py")):
        shutil.rmtree(folder)
