"""The host of a program inside the sandbox: what the world of ``wit/inferlet.wit`` imports."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any, cast

from inferlet import _host
from inferlet._border import checked
from inferlet.errors import error_of

_Err: Any = importlib.import_module("componentize_py_types").Err


def host() -> _host.Host:
    """The host around this sandbox. Its functions raise a `HostError` where the world says ``failure``."""
    found = _Sandbox()
    for interface in _host.Host.__annotations__:
        setattr(found, interface, _interface(interface))
    return cast("_host.Host", found)


class _Sandbox:
    """One attribute per interface."""


class _Interface:
    """One attribute per function of an interface."""


def _interface(name: str) -> _Interface:
    module = importlib.import_module(f"wit_world.imports.{name}")
    protocol = getattr(_host, name.capitalize())
    found = _Interface()
    for function, called in inspect.getmembers(protocol, inspect.isfunction):
        if not function.startswith("_"):
            setattr(found, function, checked(_translated(getattr(module, function)), called))
    return found


def _translated(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        try:
            return function(*arguments)
        except _Err as error:
            failure = error.value
        # Outside the handler, so that a traceback does not show the border's own error above.
        raise error_of(failure.code, failure.message)

    return call
