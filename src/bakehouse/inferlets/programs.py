"""The programs that are installed, for each owner, on disk.

``blobs/<sha-256>.wasm`` holds each component once, whoever installed it. ``owners/<owner>/<name>/<version>.json`` is
one installed program: it names its component and has its manifest. A program is there when that file is: it is written
last and put in place by renaming. One process owns the directory; what an earlier one left half done is removed at its
start.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import secrets
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from bakehouse.inferlets.base import MIB, OwnerLimits
from bakehouse.inferlets.errors import BadProgram, NoSuchProgram, Refused
from bakehouse.inferlets.manifest import Manifest, check_name
from bakehouse.inferlets.versions import Version

if TYPE_CHECKING:
    from bakehouse.inferlets.sandbox import Sandbox

log = logging.getLogger(__name__)

__all__ = ["Manifest", "Program", "ProgramStore", "Ref"]

#: Bytes of a component, versions of programs of one owner.
MAX_WASM, MAX_PROGRAMS = 256 * MIB, 4096
#: Programs that are installed at one time; others wait. Compiling one takes all cores.
INSTALLING = 2

_NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Ref:
    """Which program: a name, and a version or None for the latest."""

    name: str
    version: Version | None

    @classmethod
    def parse(cls, text: str) -> Ref:
        """Of ``name@1.2.3`` or ``name``, with or without a namespace (``ns:`` or ``ns/``), which says nothing here.

        Raises `BadProgram`.
        """
        namespace, mark, rest = text.replace("/", ":").rpartition(":")
        name, at, version = rest.partition("@")
        try:
            if mark and _NAMESPACE.fullmatch(namespace) is None:
                raise ValueError(f"{namespace!r} is no namespace")
            return cls(check_name(name), Version.parse(version) if at else None)
        except ValueError as error:
            raise BadProgram(f"{text!r} names no program: {error}", field="program") from None

    def __str__(self) -> str:
        return self.name if self.version is None else f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True)
class Program:
    """A component that is installed; ``digest`` is the SHA-256 of its bytes."""

    manifest: Manifest
    owner: str
    wasm: Path
    digest: str

    @property
    def ref(self) -> str:
        return self.manifest.ref


class ProgramStore:
    """Thread-safe. Owners see their own programs only.

    *shared*: the directory is another process's; what was installed before is found, and nothing may be installed.
    """

    def __init__(
        self, directory: Path, sandbox: Sandbox, *, shared: bool = False, limits: OwnerLimits | None = None
    ) -> None:
        #: For `install`, so that what else runs beside an event loop does not stand behind compilers.
        self.installers = ThreadPoolExecutor(INSTALLING, "install")
        self._limits = limits or OwnerLimits()
        self._blobs = directory / "blobs"
        self._owners = directory / "owners"
        self._sandbox = sandbox
        self._shared = shared
        self._guard = threading.Lock()
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._owners.mkdir(exist_ok=True)
        self._programs: dict[str, dict[str, dict[Version, _Installed]]] = {}
        #: Whether all that is there could be read.
        self._whole = True
        self._read()
        if not shared:
            self._tidy()

    def install(self, owner: str, manifest_text: str, wasm: bytes, *, force: bool = False) -> Program:
        """Check, compile and keep a program. Takes seconds where its component is new.

        The same program again changes nothing. Other content under the same name and version is `BadProgram`, unless
        *force* says to replace it; instances of the old one go on. `NoSuchProgram` where a dependency is not
        installed; `Refused` where it is too large, one too many, or its owner has too much.
        """
        self._check_ours()
        manifest = Manifest.parse(manifest_text)
        if len(wasm) > MAX_WASM:
            raise Refused(f"a program has at most {MAX_WASM} bytes, this one has {len(wasm)}")
        digest = hashlib.sha256(wasm).hexdigest()
        with self._guard:
            there = self._admit(owner, manifest, manifest_text, digest, len(wasm), force)
        if there is not None:
            return there
        self._sandbox.compile(wasm)
        # Without the guard, because it takes long to be on the disk for good, and every launch looks a program up.
        blob = self._blob(digest)
        fresh = None if blob.exists() else _written(blob, wasm)
        try:
            with self._guard:
                # Again: it took seconds, and somebody may have installed the same meanwhile.
                there = self._admit(owner, manifest, manifest_text, digest, len(wasm), force)
                if there is not None:
                    return there
                if not blob.exists():  # or no more: it was another program's, which is gone
                    fresh = fresh or _written(blob, wasm)
                    _put(fresh, blob)
                return self._keep(owner, manifest, manifest_text, digest)
        finally:
            if fresh is not None:
                fresh.unlink(missing_ok=True)

    def find(self, owner: str, ref: str) -> Program:
        """The program that *ref* names: `Ref.parse`. Raises `NoSuchProgram`, which says what there is, `BadProgram`."""
        wanted = Ref.parse(ref)
        with self._guard:
            return self._find(owner, wanted).program

    def list(self, owner: str) -> Sequence[Program]:
        """All of *owner*, by name and version."""
        with self._guard:
            names = self._programs.get(owner, {})
            return [names[name][version].program for name in sorted(names) for version in sorted(names[name])]

    def remove(self, owner: str, ref: str) -> None:
        """Take one version away; instances of it go on. Raises `NoSuchProgram`, `BadProgram` where *ref* has none."""
        self._check_ours()
        wanted = Ref.parse(ref)
        if wanted.version is None:
            raise BadProgram(f"say which version of {wanted.name} to remove", field="program")
        with self._guard:
            program = self._find(owner, wanted).program
            self._record(owner, program.manifest).unlink(missing_ok=True)
            names = self._programs[owner]
            del names[wanted.name][wanted.version]
            if not names[wanted.name]:
                del names[wanted.name]
            if not names:
                del self._programs[owner]
            self._drop_blob(program.digest)

    def _check_ours(self) -> None:
        if self._shared:
            raise Refused("these programs are another process's, which alone installs and removes them")

    # With the guard held

    def _admit(self, owner: str, manifest: Manifest, text: str, digest: str, size: int, force: bool) -> Program | None:
        """The program, where it is there already. Raises where it cannot be."""
        versions = self._programs.get(owner, {}).get(manifest.name, {})
        there = versions.get(Version.parse(manifest.version))
        if there is not None:
            if there.program.digest == digest and there.text == text:
                return there.program
            if not force:
                raise BadProgram(
                    f"{manifest.ref} is installed with other content; raise its version, or replace it by force",
                    field="package.version",
                )
        elif sum(map(len, self._programs.get(owner, {}).values())) >= MAX_PROGRAMS:
            raise Refused(f"an owner has at most {MAX_PROGRAMS} programs; remove some")
        self._check_bytes(owner, {digest: size}, there)
        for name, version in manifest.dependencies.items():
            self._find(owner, Ref(name, Version.parse(version)), f"dependencies.{name}: ")
        return None

    def _check_bytes(self, owner: str, sizes: dict[str, int], replaced: _Installed | None) -> None:
        """*sizes*: bytes of the file that is new, by digest. Raises `Refused`."""
        for versions in self._programs.get(owner, {}).values():
            sizes |= {it.program.digest: it.size for it in versions.values() if it is not replaced}
        most, size = self._limits.programs, sum(sizes.values())
        if size > most:
            text = f"programs: those of an owner may have {most} bytes together, these would have {size}; remove some"
            raise Refused(text, field="programs")

    def _find(self, owner: str, wanted: Ref, what_for: str = "") -> _Installed:
        versions = self._programs.get(owner, {}).get(wanted.name, {})
        version = wanted.version or max(versions, default=None)
        if version is not None and version in versions:
            return versions[version]
        known = "installed are: " + ", ".join(map(str, sorted(versions))) if versions else "no version of it is"
        raise NoSuchProgram(f"{what_for}program {wanted} is not installed; {known}", field="program")

    def _keep(self, owner: str, manifest: Manifest, text: str, digest: str) -> Program:
        blob = self._blob(digest)
        record = self._record(owner, manifest)
        record.parent.mkdir(parents=True, exist_ok=True)
        _write(record, json.dumps({"digest": digest, "manifest": text}).encode())
        versions = self._versions(owner, manifest.name)
        installed = _Installed(Program(manifest, owner, blob, digest), text, blob.stat().st_size)
        replaced = versions.get(installed.version)
        versions[installed.version] = installed
        if replaced is not None:
            self._drop_blob(replaced.program.digest)
        return installed.program

    def _versions(self, owner: str, name: str) -> dict[Version, _Installed]:
        return self._programs.setdefault(owner, {}).setdefault(name, {})

    def _drop_blob(self, digest: str) -> None:
        if all(installed.program.digest != digest for installed in self._all()):
            self._blob(digest).unlink(missing_ok=True)

    def _all(self) -> Iterator[_Installed]:
        for names in self._programs.values():
            for versions in names.values():
                yield from versions.values()

    # The disk

    def _blob(self, digest: str) -> Path:
        return self._blobs / f"{digest}.wasm"

    def _record(self, owner: str, manifest: Manifest) -> Path:
        return self._owners / _folder(owner) / manifest.name / f"{manifest.version}.json"

    def _read(self) -> None:
        """Find what is installed."""
        for path in sorted(self._owners.glob("*/*/*.json")):
            try:
                installed = self._installed(path)
            except (ValueError, KeyError, BadProgram):
                log.exception("a program cannot be read and is left out: %s", path)
                self._whole = False
            else:
                program = installed.program
                self._versions(program.owner, program.manifest.name)[installed.version] = installed

    def _tidy(self) -> None:
        """Remove components that no program has, and files that were being written."""
        for path in [*self._blobs.glob("*.new"), *self._owners.glob("*/*/*.new")]:
            path.unlink()
        used = {installed.program.wasm for installed in self._all()}
        for path in self._blobs.glob("*.wasm") if self._whole else ():
            if path not in used:
                path.unlink()

    def _installed(self, path: Path) -> _Installed:
        said = json.loads(path.read_bytes())
        manifest, digest = Manifest.parse(said["manifest"]), said["digest"]
        blob = self._blob(digest)
        program = Program(manifest, unquote(path.parts[-3]), blob, digest)
        return _Installed(program, said["manifest"], blob.stat().st_size if blob.exists() else 0)


@dataclass(frozen=True, slots=True)
class _Installed:
    program: Program
    text: str
    #: Bytes of its file.
    size: int

    @property
    def version(self) -> Version:
        return Version.parse(self.program.manifest.version)


def _folder(owner: str) -> str:
    """A folder's name of its own for each owner, whatever it is called."""
    return quote(owner, safe="").replace(".", "%2E") or "%"


def _write(path: Path, data: bytes) -> None:
    """All of it or nothing, whatever happens meanwhile."""
    fresh = _written(path, data)
    try:
        _put(fresh, path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def _written(path: Path, data: bytes) -> Path:
    """A file of nobody else's, beside *path*, that holds *data* for good."""
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(8)}.new")
    try:
        with fresh.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    return fresh


def _put(fresh: Path, path: Path) -> None:
    """Rename it; the new name, too, must survive a power cut."""
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
