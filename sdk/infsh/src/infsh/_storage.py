"""Where an app keeps files beyond one call, and a download into such a folder."""

import os
import shutil
from enum import Enum
from pathlib import Path
from typing import Union

from ._fetch import cache_folder, fetch


class StorageDir(str, Enum):
    """The standard folders; the server (or you) moves them with ``INFSH_DATA_DIR`` and its kin."""

    DATA = os.environ.get("INFSH_DATA_DIR", "/app/data")
    TEMP = os.environ.get("INFSH_TEMP_DIR", "/app/tmp")
    CACHE = os.environ.get("INFSH_CACHE_DIR", "/app/cache")

    @property
    def path(self) -> Path:
        """The folder, made if it is missing."""
        folder = Path(self.value)
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def download(url: str, directory: Union[str, Path, StorageDir]) -> str:
    """The path of a copy of ``url`` inside ``directory``; an earlier copy is used again, except in TEMP.

    Raises ``RuntimeError`` when the download fails.
    """
    folder = Path(directory.value if isinstance(directory, StorageDir) else directory)
    target = cache_folder(folder, url)
    if target.exists() and directory is not StorageDir.TEMP:
        return str(target)
    fetched = fetch(url)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(fetched, target)
    return str(target)
