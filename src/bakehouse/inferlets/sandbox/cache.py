"""Compiled components: in memory while they are in use, on disk for good, each made once.

A file of machine code is run without further questions, so the folder is ours alone, and a file's name says what it was
made from, by what, and what its content must hash to.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import mkstemp

from wasmtime import Engine, WasmtimeError
from wasmtime.component import Component, Linker

from bakehouse.inferlets.alone import alone
from bakehouse.inferlets.errors import BadProgram
from bakehouse.inferlets.payload import split, split_file

log = logging.getLogger(__name__)

_HASH_LENGTH = 24
#: Components that this process compiles at one time. Each takes all cores.
_COMPILING = threading.BoundedSemaphore(2)


@dataclass(frozen=True, slots=True, eq=False)
class Compiled:
    """A program ready to run, as often and on as many threads as one likes.

    ``digest`` is the SHA-256 of its component. Programs may share one; they differ in their ``payload``, a packed text.
    """

    component: Component
    linker: Linker
    digest: str
    payload: str = ""


class Cache:
    """*link* finds what a component imports; it raises `BadProgram`. *settings* names what of *engine* changes code.

    Keeps *loaded* programs in memory and *stored* bytes on disk, those last used.
    """

    def __init__(
        self,
        directory: Path,
        engine: Engine,
        settings: str,
        link: Callable[[Component], Linker],
        *,
        loaded: int = 128,
        stored: int = 8 << 30,
    ) -> None:
        _own(directory)
        self._directory, self._engine, self._link = directory, engine, link
        self._loaded, self._stored = loaded, stored
        self._settings = f"{version('wasmtime')} {os.uname().machine} {settings}"
        self._lock = threading.Lock()
        self._ready: OrderedDict[str, Compiled] = OrderedDict()
        self._making: dict[str, threading.Lock] = {}
        self._known: OrderedDict[Path, tuple[tuple[int, ...], str, int]] = OrderedDict()

    def get(self, wasm: bytes) -> Compiled:
        size, payload = split(wasm)
        component = wasm[:size]
        return _with(payload, self._get(hashlib.sha256(component).hexdigest(), lambda: component))

    def load(self, path: Path) -> Compiled:
        """Raises OSError where there is no such file."""
        digest, size, payload = self._read(path)
        return _with(payload, self._get(digest, lambda: path.read_bytes()[:size]))

    def clear(self) -> None:
        """Forget what is in memory."""
        with self._lock:
            self._ready.clear()

    def _get(self, digest: str, read: Callable[[], bytes]) -> Compiled:
        with self._lock:
            found = self._ready.get(digest)
            if found is not None:
                self._ready.move_to_end(digest)
                return found
            making = self._making.setdefault(digest, threading.Lock())
        with making:
            try:
                with self._lock:
                    found = self._ready.get(digest)
                return found or self._keep(self._make(digest, read))
            finally:
                with self._lock:
                    self._making.pop(digest, None)

    def _make(self, digest: str, read: Callable[[], bytes]) -> Compiled:
        component = self._from_disk(digest)
        if component is not None:
            return self._linked(component, digest)
        # It takes both cores of a small machine for seconds, and another process may be at it.
        with alone(self._directory / f"{self._key(digest)}.lock"):
            component = self._from_disk(digest)
            return self._compile(digest, read()) if component is None else self._linked(component, digest)

    def _keep(self, made: Compiled) -> Compiled:
        with self._lock:
            self._ready[made.digest] = made
            while len(self._ready) > self._loaded:
                self._ready.popitem(last=False)
        return made

    def _compile(self, digest: str, wasm: bytes) -> Compiled:
        with _COMPILING:
            component = compile_component(self._engine, wasm)
        compiled = self._linked(component, digest)
        self._store(digest, bytes(compiled.component.serialize()))
        return compiled

    def _linked(self, component: Component, digest: str) -> Compiled:
        return Compiled(component, self._link(component), digest)

    def _store(self, digest: str, code: bytes) -> None:
        """Atomically, so that another process never sees half a file. Without room on the disk nothing is kept."""
        name = f"{self._key(digest)}.{hashlib.sha256(code).hexdigest()[:_HASH_LENGTH]}.code"
        handle, new_name = mkstemp(dir=self._directory, prefix=".new-")
        new = Path(new_name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(code)
            new.rename(self._directory / name)
        except OSError as error:
            new.unlink(missing_ok=True)
            log.warning("machine code is not kept, and will be made again: %s", error)
            return
        self._prune()

    def _prune(self) -> None:
        left = self._stored
        for path in sorted(self._directory.glob("*.code"), key=_last_used, reverse=True):
            with suppress(FileNotFoundError):  # another process was quicker
                left -= path.stat().st_size
                if left < 0:
                    path.unlink()

    def _from_disk(self, digest: str) -> Component | None:
        for path in self._directory.glob(f"{self._key(digest)}.*.code"):
            # Whatever is wrong with a file of ours, compiling again puts it right.
            with suppress(OSError, WasmtimeError):
                if _hash_of(path)[:_HASH_LENGTH] == path.name.split(".")[1]:
                    component = Component.deserialize_file(self._engine, str(path))
                    os.utime(path)
                    return component
            path.unlink(missing_ok=True)
        return None

    def _key(self, digest: str) -> str:
        return hashlib.sha256(f"{digest} {self._settings}".encode()).hexdigest()

    def _read(self, path: Path) -> _Parts:
        """The parts of a file. It is hashed again only when its size, time or place on the disk are others."""
        status = path.stat()
        mark = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        size, payload = split_file(path)
        with self._lock:
            known = self._known.pop(path, None)
        if known is None or known[0] != mark or known[2] != size:
            known = (mark, _hash_of(path, size), size)
        with self._lock:
            self._known[path] = known
            while len(self._known) > self._stored:
                self._known.popitem(last=False)
        return known[1], size, payload


#: The digest of a file's component, its size, and the payload behind it.
_Parts = tuple[str, int, bytes | None]


def _with(payload: bytes | None, compiled: Compiled) -> Compiled:
    return compiled if payload is None else replace(compiled, payload=payload.decode("latin-1"))


def _hash_of(path: Path, size: int | None = None) -> str:
    """Of the first *size* bytes."""
    with path.open("rb") as file:
        if size is None:
            return hashlib.file_digest(file, "sha256").hexdigest()
        whole = hashlib.sha256()
        while size > 0 and (part := file.read(min(size, 1 << 20))):
            whole.update(part)
            size -= len(part)
        return whole.hexdigest()


def _last_used(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _own(directory: Path) -> None:
    """Make it, or see that nobody else can have written there. Raises `PermissionError`."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = directory.stat()
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise PermissionError(f"{directory}: others may write there, and what lies there is run as machine code")
    directory.chmod(0o700)


def compile_component(engine: Engine, wasm: bytes) -> Component:
    """Raises `BadProgram` for what is no component."""
    if not wasm.startswith(b"\0asm"):
        raise BadProgram("this is no WebAssembly: build it with `bakery build`", field="wasm")
    if wasm[4:8] == b"\x01\0\0\0":
        raise BadProgram("this is a WebAssembly module, no component: build it with `bakery build`", field="wasm")
    try:
        return Component(engine, wasm)
    except WasmtimeError as error:
        raise BadProgram(
            f"this is no valid WebAssembly component: {str(error).splitlines()[0]}", field="wasm"
        ) from None
