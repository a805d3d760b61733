"""What the component exports: ``run``. Imported while a program is built, in the interpreter that the snapshot is of.

Building (`bake`) reads the staged files into an `Image`, compiles the program's own modules and imports what they
import from elsewhere. None of the program's own code runs then: it must find a fresh clock, fresh random numbers and
its host. Launching (`Run.run`) executes the program in a copy of that interpreter, which serves one launch only.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import pkgutil
import sys
import traceback
from collections.abc import Iterable
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

import inferlet
from inferlet import _async, _host, _program, _sandbox
from inferlet._image import Image

_Err: Any = importlib.import_module("componentize_py_types").Err

PROBLEM = "bakery-problem: "
"""Begins the line by which a failed build says, as JSON, what is wrong: file, line (or null), text."""


class _Baked:
    """What a launch starts from."""

    image: Image
    entry: str
    name: str


def bake(staged: Path) -> None:
    """Take in what the build tool put below *staged*: ``plan.json``, ``program/`` and ``site/``.

    The plan: ``entry`` (a file of the program), ``imports`` (modules to have in the snapshot), ``optional`` (the
    same, of which some may be missing here). On a fault, says so on stderr and raises.
    """
    plan = json.loads((staged / "plan.json").read_text("utf-8"))
    own = _read(staged / "program")
    image = _Baked.image = Image({**_read(staged / "site"), **own})
    for path in own:
        if path.endswith(".py"):
            _compile(image, path)
    _Baked.entry = plan["entry"]
    _Baked.name = _program.module_name(own[plan["entry"]], plan["entry"])
    _import_sdk()
    sys.meta_path.insert(0, image)
    # For dependencies that ask for their own metadata when they are imported.
    sys.path.append(str(staged / "site"))
    for name in plan["imports"]:
        _import(name)
    for name in plan["optional"]:
        # Named in a function or after a check: whether it can be had here shows when it is asked for.
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    _settle(staged)


#: What programs outside of a sandbox use.
_OUTSIDE = ("inferlet.remote", "inferlet.client")


def _import_sdk(path: Iterable[str] = inferlet.__path__, prefix: str = "inferlet.") -> None:
    """Every module of it that works in the sandbox: there is no other time to load one."""
    for found in pkgutil.iter_modules(path, prefix):
        if found.name not in _OUTSIDE:
            module = importlib.import_module(found.name)
            if found.ispkg:
                _import_sdk(module.__path__, f"{found.name}.")


def _settle(staged: Path) -> None:
    """Leave the interpreter as every launch is to find it."""
    _host.use(_sandbox.host())
    _async.install()
    sys.path[:] = [entry for entry in sys.path if not entry.startswith(str(staged))]
    sys.path_importer_cache.clear()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    try:
        raise ZeroDivisionError("what a traceback needs is imported now")
    except ZeroDivisionError as error:
        _program.user_traceback(error, lambda path: True)
    gc.collect()
    # A collection that marks an object writes to its page, which each launch would then have a copy of.
    gc.freeze()


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
        _say(name, None, _program.error_text(error))
        raise


def _say(file: str, line: int | None, text: str) -> None:
    sys.stderr.write(PROBLEM + json.dumps({"file": file, "line": line, "text": text}) + "\n")


class Run:
    """The exported interface ``pie:core/run``."""

    def run(self, arguments: list[str]) -> str:
        """The program's result; its error, and a traceback on stderr, when it raises."""
        try:
            return _launch(arguments)
        except BaseException as error:
            text = _program.error_text(error)
            _report(error)
        finally:
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(ValueError):  # the program closed it
                    stream.flush()
        raise _Err(text)


def _launch(arguments: list[str]) -> str:
    image, entry = _Baked.image, _Baked.entry
    if "random" in sys.modules:
        # Its generator is part of the snapshot: without this, every launch would draw the same numbers.
        sys.modules["random"].seed()
    return _program.run(image.code(entry), _module(image, entry), arguments)


def _module(image: Image, entry: str) -> ModuleType:
    spec = spec_from_loader(_Baked.name, image.loader(entry), origin=entry)
    assert spec is not None
    spec.has_location = True
    return module_from_spec(spec)


def _report(error: BaseException) -> None:
    try:
        shown = _program.user_traceback(error, _Baked.image.files.__contains__)
    except MemoryError:
        shown = "".join(traceback.format_exception_only(error))
    with contextlib.suppress(ValueError):  # the program closed it
        sys.stderr.write(shown)
