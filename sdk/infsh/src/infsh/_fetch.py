"""Fetches ``http(s)`` and ``data:`` URIs into the cache: once, also when several processes ask at the same time."""

from __future__ import annotations

import base64
import binascii
import fcntl
import functools
import hashlib
import mimetypes
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, unquote_to_bytes, urlsplit

import httpx

ATTEMPTS = 2
TIMEOUT_SECONDS = 120.0
MAX_NAME = 120


def is_url(text: str) -> bool:
    """Whether it is an ``http`` or ``https`` URL."""
    return urlsplit(text).scheme in ("http", "https") if ":" in text[:6] else False


def is_data_uri(text: str) -> bool:
    """Whether it is a ``data:`` URI."""
    return text[:5].lower() == "data:"


def cache_root() -> Path:
    """``FILE_CACHE_DIR``, else a folder in the user's cache."""
    named = os.environ.get("FILE_CACHE_DIR")
    return Path(named) if named else Path.home() / ".cache" / "inferencesh" / "files"


def cache_folder(root: Path, url: str) -> Path:
    """The path that a URL is kept under: the hash of the whole URL, then the URL's own file name."""
    name = Path(unquote(urlsplit(url).path)).name[-MAX_NAME:] or "download"
    return root / hashlib.sha256(url.encode()).hexdigest()[:24] / name


def fetch(url: str) -> Path:
    """The local copy of ``url``. Raises ``RuntimeError`` saying which URL failed and why."""
    target = cache_folder(cache_root(), url)
    if target.exists():
        os.utime(target)  # so that whoever empties the cache sees when it was last used
        return target
    with _locked(target):
        if not target.exists():
            _download(url, target)
    return target


def decode(uri: str) -> tuple[Path, str]:
    """The local copy of a ``data:`` URI and its media type. Raises ``ValueError`` for a malformed one."""
    head, comma, body = uri[5:].partition(",")
    if not comma:
        raise ValueError("a data URI needs a comma before its data")
    parts = head.split(";")
    media_type = parts[0].strip().lower() or "text/plain"
    data = _unbase64(body) if "base64" in (part.strip().lower() for part in parts[1:]) else unquote_to_bytes(body)
    suffix = mimetypes.guess_extension(media_type) or ""
    target = cache_root() / "data" / hashlib.sha256(uri.encode()).hexdigest()[:24] / f"file{suffix}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with _replacing(target) as partial:
            partial.write_bytes(data)
    return target, media_type


def _unbase64(text: str) -> bytes:
    text = "".join(unquote(text).split()).replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise ValueError(f"a data URI holds bad base64: {error}") from error


def _download(url: str, target: Path) -> None:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with _replacing(target) as partial:
                _stream(url, partial)
            return
        except (httpx.HTTPError, OSError) as error:
            refused = isinstance(error, httpx.HTTPStatusError) and error.response.status_code < 500
            if attempt == ATTEMPTS or refused:
                raise RuntimeError(f"cannot download {url}: {error}") from error


@functools.lru_cache(maxsize=1)
def _client(_process: int) -> httpx.Client:
    """One per process: making a client costs more than a small download, and a fork must not share connections."""
    return httpx.Client(follow_redirects=True, timeout=TIMEOUT_SECONDS)


def _stream(url: str, target: Path) -> None:
    with _client(os.getpid()).stream("GET", url) as response:
        response.raise_for_status()
        with target.open("wb") as file:
            for chunk in response.iter_bytes():
                file.write(chunk)


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Only one process at a time; the lock ends with its holder, however that dies."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent.parent / f".{target.parent.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A temporary path beside ``target`` that takes its place at the end: readers never see half a file."""
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".partial-")
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
