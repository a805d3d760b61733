"""Finds the app: imports ``inference.py`` by path and picks its one subclass of ``BaseApp``."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

ENTRY = "inference.py"
SDK_ROOTS = ("infsh", "inferencesh")


class LoadError(Exception):
    """The folder holds no app that can be run; the text says what to change."""


def load_app_class(app_dir: str) -> type[Any]:
    """The app's class. Raises `LoadError`, and whatever the app's own module raises while it is imported."""
    path = Path(app_dir) / ENTRY
    if not path.is_file():
        raise LoadError(f"the app has no {ENTRY}")
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, str(path))
    if spec is None or spec.loader is None:
        raise LoadError(f"{ENTRY} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return _pick(module)


def is_sdk_class(cls: Any, name: str) -> bool:
    """Whether ``cls`` is the class ``name`` of one of the app SDKs: they are known by shape, never imported here."""
    return getattr(cls, "__name__", "") == name and str(getattr(cls, "__module__", "")).split(".")[0] in SDK_ROOTS


def derives(cls: Any, name: str) -> bool:
    """Whether ``cls`` is a subclass of the SDK class ``name``, at any depth."""
    return any(is_sdk_class(base, name) for base in getattr(cls, "__mro__", ()))


def sdk_module(app_class: type[Any]) -> Any:
    """The SDK package that the app's ``BaseApp`` comes from."""
    base = next(base for base in app_class.__mro__ if is_sdk_class(base, "BaseApp"))
    return sys.modules.get(base.__module__.split(".")[0])


def _pick(module: Any) -> type[Any]:
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and value.__module__ == module.__name__ and derives(value, "BaseApp")
    ]
    # A base class that another class of the file extends is not the app itself.
    leaves = [
        cls for cls in dict.fromkeys(found) if not any(cls is not other and issubclass(other, cls) for other in found)
    ]
    if not leaves:
        raise LoadError(f"{ENTRY} defines no subclass of BaseApp (from infsh or inferencesh)")
    if len(leaves) > 1:
        names = ", ".join(cls.__name__ for cls in leaves)
        raise LoadError(f"{ENTRY} defines several apps ({names}); keep one subclass of BaseApp")
    return leaves[0]
