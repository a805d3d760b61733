"""What the component exports: ``run``. Imported while a component is built, in the interpreter that the snapshot is of.

There are two kinds of components. One is built for a program: `bake` reads the staged files into an `Image` and imports
what they import from elsewhere, so that it is in the snapshot. The other is shared: it holds the SDK and the usual part
of the standard library, and gets the program's own modules, compiled (`make`), from its host when it is launched.

Either way none of the program's own code runs before the launch: it must find a fresh clock, fresh random numbers and
its host. Launching (`Run.run`) executes the program in a copy of that interpreter, which serves one launch only.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import linecache
import marshal
import os
import pkgutil
import sys
import traceback
from collections.abc import Iterable
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import inferlet
from inferlet import _async, _host, _program, _sandbox
from inferlet._image import Image, Squeezed
from inferlet._packing import pack_bytes, unpack_bytes

_Err: Any = importlib.import_module("componentize_py_types").Err
_host_program: Any = importlib.import_module("wit_world.imports.program")

PROBLEM = "bakery-problem: "
"""Begins the line by which a build says, as JSON, what is wrong: file, line (or null), text."""

#: What programs outside of a sandbox use.
_OUTSIDE = ("inferlet.remote", "inferlet.client")


class Program(NamedTuple):
    """*entry* is the file that runs, and *name* what it is called as a module."""

    image: Image
    entry: str
    name: str


#: The program that this component was built for; none in a shared one.
_baked: list[Program] = []


# While a component is built


def bake(staged: Path) -> None:
    """Take in what the build tool put below *staged*: ``plan.json``, ``program/`` and ``site/``.

    The plan: ``entry`` (a file of the program; null for a shared component), ``imports`` (modules to have in the
    snapshot), ``optional`` (the same, of which some may be missing here). On a fault, says so on stderr and raises.
    """
    plan = json.loads((staged / "plan.json").read_text("utf-8"))
    if plan["entry"] is not None:
        _take_in(staged, plan["entry"])
    _import_sdk()
    for name in plan["imports"]:
        _import(name)
    for name in plan["optional"]:
        # Named in a function or after a check: whether it can be had here shows when it is asked for.
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    sys.meta_path.append(_shelf())
    _settle(staged)


def _take_in(staged: Path, entry: str) -> None:
    own = _read(staged / "program")
    image = Image({**_read(staged / "site"), **own})
    for path in own:
        if path.endswith(".py"):
            _compile(image, path)
    _baked.append(Program(image, entry, _program.module_name(own[entry], entry)))
    sys.meta_path.insert(0, image)
    # For dependencies that ask for their own metadata when they are imported.
    sys.path.append(str(staged / "site"))


def _import_sdk(path: Iterable[str] = inferlet.__path__, prefix: str = "inferlet.") -> None:
    """Every module of it that works in the sandbox: there is no other time to load one."""
    for found in pkgutil.iter_modules(path, prefix):
        if found.name not in _OUTSIDE:
            module = importlib.import_module(found.name)
            if found.ispkg:
                _import_sdk(module.__path__, f"{found.name}.")


def _shelf() -> Image:
    """The rest of the standard library, not imported: much of it imports its own parts when they are first used."""
    # Of a module that is no part of the interpreter itself, which says otherwise where it is from.
    root = Path(json.__file__).parents[1]
    loaded = {getattr(module, "__file__", None) for module in sys.modules.values()}
    files = Squeezed()
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _USELESS]
        for path in (Path(folder, name) for name in names if name.endswith(".py")):
            if str(path) not in loaded:
                files[path.relative_to(root).as_posix()] = path.read_bytes()
    return Image(files)


#: Parts of the standard library that have nothing to work with in the sandbox, or are large and for development only.
_USELESS = {
    *("__phello__", "__pycache__", "_pyrepl", "ctypes", "curses", "dbm", "ensurepip", "idlelib", "lib-dynload"),
    *("lib2to3", "multiprocessing", "pydoc_data", "site-packages", "sqlite3", "test", "tests", "tkinter"),
    *("turtledemo", "venv", "wsgiref", "xmlrpc"),
}


def _settle(staged: Path) -> None:
    """Leave the interpreter as every launch is to find it."""
    _host.use(_sandbox.host())
    _async.install()
    sys.path[:] = [entry for entry in sys.path if not entry.startswith(str(staged))]
    sys.path_importer_cache.clear()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    _rehearse()
    gc.collect()
    _fill_gaps()
    # A collection that marks an object writes to its page, which each launch would then have a copy of.
    gc.freeze()


def _fill_gaps() -> None:
    """Leave no free room between the objects of the snapshot.

    A launch would strew its own over hundreds of pages that it shares with other launches, and copy them for it. So
    they lie together, in pages that nobody had.
    """
    for size in (*(1 << bits for bits in range(16, 10, -1)), *range(1024, 0, -8)):
        in_a_row = last = 0
        # The gaps that are left are narrower than two blocks: several side by side are in room that was never used.
        while in_a_row < _ENOUGH:
            block = bytes(size) if size > 8 else object()
            in_a_row = in_a_row + 1 if 0 < id(block) - last <= size + 64 else 0
            last = id(block)
            _fillers.append(block)
        del _fillers[-_ENOUGH:]


#: What fills gaps, and how many blocks side by side are more than a gap holds.
_fillers: list[object] = []
_ENOUGH = 16


def _rehearse() -> None:
    """Launch some programs, so that what a launch imports, keeps and learns of its own code is in the snapshot.

    What it would learn later it would write into pages that it shares with other launches, and copy them for it.
    """
    outer, path, argv = sys.modules["__main__"], list(sys.meta_path), list(sys.argv)
    for source in _REHEARSED * 10:
        payload = make({"entry": "rehearsed.py", "files": {"rehearsed.py": source}})
        try:
            _launch(_received(payload), ["--a", "1"])
        except ZeroDivisionError as error:
            _program.error_text(error)
            _program.user_traceback(error, lambda path: True)
        sys.meta_path[:], sys.argv[:] = path, argv
    sys.modules["__main__"] = outer
    del sys.modules["rehearsed"]
    linecache.clearcache()


_REHEARSED = (
    "x = 1",
    "def main(): return 'x'",
    "def main(args): return args",
    "async def main(input: dict): return input",
    "def main(): 1 / 0",
)


def _read(folder: Path) -> dict[str, bytes]:
    if not folder.is_dir():
        return {}
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def _compile(image: Image, path: str) -> None:
    try:
        image.code(path)
    except SyntaxError as error:
        _say(path, error.lineno, f"{type(error).__name__}: {error.msg}")
        raise


def _import(name: str) -> None:
    try:
        importlib.import_module(name)
    except BaseException as error:
        _say(name, None, f"it cannot be imported in the sandbox: {_program.error_text(error)}")
        raise


def _say(file: str, line: int | None, text: str) -> None:
    sys.stderr.write(PROBLEM + json.dumps({"file": file, "line": line, "text": text}) + "\n")


def make(request: dict[str, Any]) -> str:
    """What a shared component needs at launch to be the program of *request* (``entry``, ``files``), packed."""
    image = Image({path: unpack_bytes(data) for path, data in request["files"].items()})
    for path in image.files:
        if path.endswith(".py"):
            _compile(image, path)
    entry = request["entry"]
    name = _program.module_name(image.files[entry], entry)
    return pack_bytes(marshal.dumps((entry, name, image.files, image.compiled())))


# At launch


class Run:
    """The exported interface ``pie:core/run``."""

    def run(self, arguments: list[str]) -> str:
        """The program's result; its error, and a traceback on stderr, when it raises."""
        image = None
        try:
            if _baked:
                (program,) = _baked
            else:
                payload = _host_program.payload()
                if payload.startswith("{"):
                    return make(json.loads(payload))
                program = _received(payload)
            image = program.image
            return _launch(program, arguments)
        except BaseException as error:
            text = _program.error_text(error)
            _report(error, image)
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(ValueError):  # the program closed it
                    stream.flush()
        raise _Err(text)


def _received(payload: str) -> Program:
    if not payload:
        raise _program.ProgramError("this component is a part of programs, and no program: there is no code behind it")
    entry, name, files, compiled = marshal.loads(unpack_bytes(payload))
    program = Program(Image(files, compiled), entry, name)
    sys.meta_path.insert(0, program.image)
    return program


def _launch(program: Program, arguments: list[str]) -> str:
    if "random" in sys.modules:
        # Its generator is part of the snapshot: without this, every launch would draw the same numbers. By itself it
        # would ask the host for 2500 bytes, a hundred at a time.
        sys.modules["random"].seed(int.from_bytes(os.urandom(32), "little"))
    return _program.run(program.image.code(program.entry), _module(program), arguments)


def _module(program: Program) -> ModuleType:
    spec = spec_from_loader(program.name, program.image.loader(program.entry), origin=program.entry)
    assert spec is not None
    spec.has_location = True
    return module_from_spec(spec)


def _report(error: BaseException, image: Image | None) -> None:
    files = {} if image is None else image.files
    try:
        shown = _program.user_traceback(error, files.__contains__)
    except MemoryError:
        shown = "".join(traceback.format_exception_only(error))
    with contextlib.suppress(ValueError):  # the program closed it
        sys.stderr.write(shown)
