"""Packages (zip or tar.gz) are read here, and only here, with nothing in them believed.

Refused: absolute paths, ``..``, links, devices, names that differ only by case, names that some system cannot hold,
too many files, too many bytes, and archives that grow out of proportion. All bytes are counted as they are read;
sizes that an archive states about itself are never used.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from bakehouse.build import manifest
from bakehouse.core.app import Manifest
from bakehouse.core.errors import Invalid, TooLarge

MANIFESTS = (manifest.FILENAME, "Pie.toml")
"""What a package says about itself: an app's, an inferlet's."""

_CHUNK = 1 << 20
_RATIO_FREE = 64 << 20
"""Below this many bytes no proportion is looked at: a small file of zeros harms nobody."""


# What zipfile, tarfile and gzip raise for damage; NotImplementedError is an unknown compression method.
_UNREADABLE = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, NotImplementedError, ValueError),
)


@dataclass(frozen=True, slots=True)
class PackageLimits:
    """Bounds of one package: files and folders, bytes after unpacking, and bytes out per byte in."""

    entries: int = 20_000
    size: int = 4 << 30
    ratio: int = 200


@dataclass(frozen=True, slots=True)
class Contents:
    """What a package holds. ``digest`` is SHA-256 in hex over the sorted (path, executable, content) of its files.

    ``manifest`` is its ``inf.yml``, ``inferlet`` its ``Pie.toml``.
    """

    digest: str
    files: tuple[str, ...]
    size: int
    manifest: bytes | None
    inferlet: bytes | None = None


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    executable: bool
    is_dir: bool
    # None for folders.
    source: IO[bytes] | None


def read_manifest(package: Path, limits: PackageLimits | None = None) -> tuple[Manifest, str, list[str]]:
    """The manifest in *package*, the digest of its content and warnings. Blocks: call it in a thread.

    Raises Invalid for a package or manifest that cannot be accepted, TooLarge for one over the limits.
    """
    return manifest_of(scan(package, limits))


def manifest_of(contents: Contents) -> tuple[Manifest, str, list[str]]:
    """The same of a package that was scanned."""
    if contents.manifest is None:
        raise bad_package(f"there is no {manifest.FILENAME} at the top of the package")
    if "inference.py" not in contents.files:
        raise bad_package("there is no inference.py at the top of the package")
    parsed, warnings = manifest.parse_manifest(contents.manifest)
    if "packages.txt" in contents.files:
        warnings.append("packages.txt has no effect: system packages are the operator's to install")
    return parsed, contents.digest, warnings


def scan(package: Path, limits: PackageLimits | None = None) -> Contents:
    """Read all of *package*, check it and write nothing."""
    return _process(package, None, limits or PackageLimits())


def unpack(package: Path, into: Path, limits: PackageLimits | None = None) -> Contents:
    """Unpack *package* into the new folder *into*; its files and folders are then read-only.

    When it raises, *into* may be half full: the caller unpacks into a temporary place and renames.
    """
    into.mkdir(parents=True)
    contents = _process(package, into, limits or PackageLimits())
    for folder in [*(path for path in into.rglob("*") if path.is_dir()), into]:
        folder.chmod(0o555)
    return contents


def bad_package(message: str) -> Invalid:
    """The error of a package that cannot be accepted."""
    path = "/version/package_uri"
    return Invalid(
        f"the package is refused: {message}", code="invalid_package", fields=[{"path": path, "message": message}]
    )


def _process(package: Path, into: Path | None, limits: PackageLimits) -> Contents:
    reader = _Reader(package, limits)
    try:
        for entry in _entries(package, limits):
            reader.take(entry, into)
    except _UNREADABLE as wrong:
        raise bad_package(f"it cannot be read ({type(wrong).__name__}: {wrong})") from None
    return reader.contents()


class _Reader:
    """Checks entries one after another and adds up what they hold."""

    def __init__(self, package: Path, limits: PackageLimits) -> None:
        self._limits = limits
        self._packed = max(package.stat().st_size, 1)
        self._folded: dict[str, str] = {}
        self._hashes: dict[str, tuple[bool, bytes]] = {}
        self._folders: set[str] = set()
        self._entries = 0
        self._size = 0
        self._manifests: dict[str, bytes] = {}

    def take(self, entry: _Entry, into: Path | None) -> None:
        self._entries += 1
        if self._entries > self._limits.entries:
            raise TooLarge(f"the package has more than {self._limits.entries} entries")
        name = _safe_name(entry.name)
        if not name:
            return
        self._claim(name, entry.is_dir)
        if entry.source is None:
            if into is not None:
                (into / name).mkdir(parents=True, exist_ok=True)
            return
        with closing(entry.source):
            self._hashes[name] = (entry.executable, self._copy(name, entry.source, into))
        if into is not None:
            (into / name).chmod(0o555 if entry.executable else 0o444)

    def _claim(self, name: str, is_dir: bool) -> None:
        """Note *name* and its parents; refuse what would fall on something else, on any file system."""
        parts = name.split("/")
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            folded = unicodedata.normalize("NFC", path).casefold()
            other = self._folded.setdefault(folded, path)
            if other != path:
                raise bad_package(f"{path!r} and {other!r} differ only by case or accents")
            folder = is_dir or depth < len(parts)
            if (folder and path in self._hashes) or (not folder and (path in self._hashes or path in self._folders)):
                raise bad_package(f"{path!r} stands in it twice")
            if folder:
                self._folders.add(path)

    def _copy(self, name: str, source: IO[bytes], into: Path | None) -> bytes:
        digest = hashlib.sha256()
        head = bytearray()
        target = None
        if into is not None:
            path = into / name
            path.parent.mkdir(parents=True, exist_ok=True)
            target = path.open("xb")
        try:
            while chunk := source.read(_CHUNK):
                self._count(len(chunk))
                digest.update(chunk)
                if name in MANIFESTS and len(head) <= manifest.MAX_SIZE:
                    head += chunk
                if target is not None:
                    target.write(chunk)
        finally:
            if target is not None:
                target.close()
        if name in MANIFESTS:
            self._manifests[name] = bytes(head)
        return digest.digest()

    def _count(self, count: int) -> None:
        self._size += count
        if self._size > self._limits.size:
            raise TooLarge(f"the package unpacks to more than {self._limits.size} bytes")
        if self._size > _RATIO_FREE and self._size > self._packed * self._limits.ratio:
            raise TooLarge(f"the package unpacks to more than {self._limits.ratio} times its size")

    def contents(self) -> Contents:
        digest = hashlib.sha256()
        for name in sorted(self._hashes):
            executable, content = self._hashes[name]
            encoded = name.encode()
            # The length in front keeps one name from running into the next field.
            digest.update(len(encoded).to_bytes(4, "big") + encoded + bytes([executable]) + content)
        manifests = (self._manifests.get(name) for name in MANIFESTS)
        return Contents(digest.hexdigest(), tuple(sorted(self._hashes)), self._size, *manifests)


def _safe_name(name: str) -> str:
    """*name* as a clean relative path, or "" for the top itself; raises Invalid for anything that could leave it."""
    if name.startswith("/"):
        raise bad_package(f"{name!r} is an absolute path")
    if "\\" in name or any(ord(c) < 32 or ord(c) == 127 for c in name):
        raise bad_package(f"{name!r} has a backslash or a control character in its name")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise bad_package(f"{name!r} leaves the package")
    if any(len(part.encode()) > 255 for part in parts) or len(name.encode()) > 1024:
        raise bad_package(f"{name[:80]!r}... is too long a name")
    return "/".join(parts)


def _entries(package: Path, limits: PackageLimits) -> Iterator[_Entry]:
    with package.open("rb") as file:
        magic = file.read(4)
    if magic[:2] == b"\x1f\x8b":
        return _tar_entries(package)
    if magic in (b"PK\x03\x04", b"PK\x05\x06"):
        return _zip_entries(package, limits)
    raise bad_package("it is neither a zip nor a tar.gz")


def _zip_entries(package: Path, limits: PackageLimits) -> Iterator[_Entry]:
    with zipfile.ZipFile(package) as archive:
        if len(archive.infolist()) > limits.entries:
            raise TooLarge(f"the package has more than {limits.entries} entries")
        for info in archive.infolist():
            if info.flag_bits & 0x1:
                raise bad_package(f"{info.filename!r} is encrypted")
            mode = info.external_attr >> 16
            kind = stat.S_IFMT(mode)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise bad_package(f"{info.filename!r} is a link or a device")
            source = None if info.is_dir() else _open_member(archive, info)
            yield _Entry(info.filename, bool(mode & 0o111), info.is_dir(), source)


def _open_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    try:
        return archive.open(info)
    except OSError as wrong:
        # An offset that points outside of the file; elsewhere an OSError is the disk's, not the package's.
        raise bad_package(f"it cannot be read ({wrong})") from None


def _tar_entries(package: Path) -> Iterator[_Entry]:
    with gzip.open(package, "rb") as unzipped:
        counted = _Counted(unzipped)
        # A stream ("|"): the archive is read once, front to back, and nothing is sought.
        with tarfile.open(fileobj=cast(IO[bytes], counted), mode="r|") as archive:
            for info in archive:
                counted.allowed += info.size
                if not (info.isreg() or info.isdir()) or info.issparse():
                    raise bad_package(f"{info.name!r} is a link, a device or sparse")
                source = archive.extractfile(info) if info.isreg() else None
                yield _Entry(info.name, bool(info.mode & 0o111), info.isdir(), source)
        # To the end, since only there gzip finds out that bytes are wrong or missing.
        while counted.read(_CHUNK):
            pass


class _Counted:
    """A tar's bytes. Those that belong to no file are limited, as tarfile takes extended headers whole into memory."""

    def __init__(self, source: gzip.GzipFile) -> None:
        self._source = source
        self._read = 0
        self.allowed = 32 << 20

    def read(self, count: int) -> bytes:
        data = self._source.read(count)
        self._read += len(data)
        if self._read > self.allowed:
            raise TooLarge("the package has more than 32 MiB of headers")
        return data
