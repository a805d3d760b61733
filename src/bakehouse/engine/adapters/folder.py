"""Folders that are there whole or not at all. Standard library only."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from bakehouse.engine.errors import BadRequest

#: What every adapter's folder holds.
CONFIG = "adapter_config.json"


def replace_folder(
    path: Path, fill: Callable[[Path], None], failures: tuple[type[Exception], ...] = (OSError,)
) -> None:
    """Put a folder at *path* that *fill* fills: made beside it and moved there, so that no half of it is ever seen.

    An adapter's folder that is there is replaced; anything else is refused. Raises `BadRequest` with the word of what
    failed, for *failures*.
    """
    if path.exists() and not (path / CONFIG).is_file() and not (path.is_dir() and not any(path.iterdir())):
        raise BadRequest.at("path", f"{path} is there and is no adapter; it is not overwritten")
    mark = uuid.uuid4().hex[:12]
    fresh, old = (path.with_name(f".{path.name}.{mark}.{kind}") for kind in ("new", "old"))
    try:
        fresh.mkdir(parents=True)
        fill(fresh)
        if path.exists():
            path.rename(old)
        fresh.rename(path)
    except failures as problem:
        if old.exists() and not path.exists():
            old.rename(path)
        raise BadRequest.at("path", f"{path}: {problem}") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
