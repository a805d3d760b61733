"""Packing an app's folder and deploying it: upload, new version, the build's log until it ends."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

from ._remote import Remote

REQUIRED = ("inf.yml", "inference.py")
INFERLET = "Pie.toml"
"""What makes a folder an inferlet instead."""
EXCLUDED_FOLDERS = frozenset(
    {".git", ".hg", ".svn", "__pycache__", ".venv", "venv", "node_modules", ".mypy_cache", ".pytest_cache"}
    | {".ruff_cache", ".ipynb_checkpoints", ".idea", ".vscode", ".tox"}
)
# .env holds secrets more often than not, and a package is kept for ever.
EXCLUDED_FILES = ("*.pyc", "*.pyo", ".DS_Store", ".env", ".env.*", "*.swp")
_EPOCH = (1980, 1, 1, 0, 0, 0)


class DeployError(Exception):
    """The folder cannot be packed, or its build failed; the text says why."""


@dataclass(frozen=True)
class Package:
    """A packed folder: ``files`` are relative paths, ``size`` the bytes of ``path``, ``digest`` its SHA-256."""

    path: Path
    files: list[str]
    size: int
    digest: str


def package_files(folder: Path) -> list[str]:
    """What belongs into the package, sorted. Raises `DeployError` for a folder that is no app or links outside."""
    if not folder.is_dir():
        raise DeployError(f"{folder}: there is no such folder")
    missing = [name for name in REQUIRED if not (folder / name).is_file()]
    if missing and not (folder / INFERLET).is_file():
        raise DeployError(
            f"{folder} is no app: {' and '.join(missing)} missing (`infsh app init` makes one); "
            f"nor an inferlet: {INFERLET} missing"
        )
    root = folder.resolve()
    found: list[str] = []
    for parent, folders, names in os.walk(root, onerror=_raise):
        folders[:] = [name for name in folders if name not in EXCLUDED_FOLDERS]
        for name in names:
            path = Path(parent) / name
            if any(fnmatch.fnmatch(name, pattern) for pattern in EXCLUDED_FILES):
                continue
            if not path.resolve().is_relative_to(root):
                raise DeployError(f"{path} links to a place outside of the app's folder")
            if path.is_file():
                found.append(path.relative_to(root).as_posix())
    return sorted(found)


@contextmanager
def packed(folder: Path) -> Iterator[Package]:
    """A zip of ``folder`` in a temporary place; equal folders give equal bytes. Raises `DeployError`."""
    files = package_files(folder)
    with tempfile.TemporaryDirectory(prefix="infsh-") as temporary:
        target = Path(temporary) / f"{folder.resolve().name or 'app'}.zip"
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
            for name in files:
                _add(archive, folder / name, name)
        with target.open("rb") as file:
            digest = hashlib.sha256()
            for chunk in iter(lambda: file.read(1 << 20), b""):
                digest.update(chunk)
        yield Package(target, files, target.stat().st_size, digest.hexdigest())


def deploy(
    folder: Path,
    remote: Remote,
    on_update: Callable[[dict[str, Any]], None] = lambda update: None,
    namespace: str | None = None,
) -> dict[str, Any]:
    """Upload ``folder`` as a new version and wait for its build.

    ``on_update`` gets every update of the build task (``logs`` are new lines only). The answer is the app with its
    version, ``messages`` (the server's remarks) and ``task`` (the finished build). Raises `DeployError` when the
    build fails, `RemoteError` when the server refuses.
    """
    with packed(folder) as package:
        uploaded = remote.upload(package.path, "application/zip")
    body: dict[str, Any] = {"version": {"package_uri": uploaded["uri"]}}
    if namespace:
        body["namespace"] = namespace
    answer = remote.answer("POST", "/apps", body)
    app: dict[str, Any] = answer["data"]
    task: dict[str, Any] = {}
    if app.get("build_task_id"):
        for task in remote.follow(app["build_task_id"]):
            on_update(task)
        if task.get("status_text") != "completed":
            raise DeployError(f"the build {task.get('status_text', 'ended')}: {task.get('error') or 'see its log'}")
    return {**app, "messages": answer.get("messages") or [], "task": task}


def _raise(error: OSError) -> None:
    raise DeployError(f"cannot read {error.filename}: {error.strerror}") from error


def _add(archive: zipfile.ZipFile, path: Path, name: str) -> None:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = (0o100755 if os.access(path, os.X_OK) else 0o100644) << 16
    with path.open("rb") as source, archive.open(info, "w", force_zip64=path.stat().st_size > 1 << 31) as target:
        for chunk in iter(lambda: source.read(1 << 20), b""):
            target.write(chunk)
