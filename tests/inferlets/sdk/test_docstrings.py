"""What a program can use says what it is: each class, function and property, and which errors it raises."""

from __future__ import annotations

import builtins
import inspect
import re
from collections.abc import Iterator
from functools import cached_property
from types import ModuleType
from typing import Any

import inferlet
import pytest
from inferlet import aio, client, content, errors, events, generation, masks, output, streams

RAISES = {
    "Model.load": "NotFound",
    "Tokenizer.encode": "BadRequest",
    "Context": "LimitExceeded",
    "Context.fork": "NameTaken",
    "Context.release": "Cancelled NotFound",
    "Context.fill_tokens": "BadRequest",
    "Context.equip_tools": "BadRequest",
    "Context.flush": "OutOfPages",
    "Context.generate": "BadRequest OutOfPages DeadlineExceeded Cancelled",
    "ForwardPass.execute": "BadRequest OutOfPages DeadlineExceeded",
    "Sampler": "BadRequest",
    "Grammar": "BadRequest",
    "Matcher.accept_tokens": "BadRequest",
    "Adapter.create": "NameTaken",
    "Adapter.clone": "NameTaken",
    "Adapter.load": "NotFound BadRequest",
    "Adapter.save": "BadRequest",
    "session.send": "LimitExceeded",
    "session.send_file": "LimitExceeded",
    "runtime.spawn": "NotFound LimitExceeded SpawnFailed",
    "messaging.push": "LimitExceeded",
    "mcp.connect": "NotFound McpError",
    "mcp.McpSession": "McpError",
    "zo.initialize": "BadRequest Locked",
    "zo.update": "BadRequest Locked",
}


def public(name: str, found: Any) -> Iterator[tuple[str, Any]]:
    """*found* and what is public in it, by name."""
    if inspect.ismodule(found):
        for word, value in vars(found).items():
            if not word.startswith("_") and getattr(value, "__module__", "") == found.__name__:
                yield from public(f"{name}.{word}", value)
        return
    yield name, found
    if not inspect.isclass(found):
        return
    for kind in found.__mro__:
        for word, value in vars(kind).items() if kind.__module__.startswith("inferlet") else ():
            plain = getattr(value, "__func__", value)
            if not word.startswith("_") and (
                inspect.isclass(plain) or inspect.isfunction(plain) or isinstance(plain, property | cached_property)
            ):
                yield from public(f"{name}.{word}", plain)


SURFACES: list[ModuleType] = [inferlet, aio, client]
MODULES: list[ModuleType] = [client, content, errors, events, generation, masks, output, streams]


def everything() -> Iterator[tuple[str, Any]]:
    for surface in SURFACES:
        for name in surface.__all__:
            yield from public(f"{surface.__name__}.{name}", getattr(surface, name))
    for module in MODULES:
        yield from public(module.__name__, module)


def test_everything_public_has_a_docstring() -> None:
    assert not {name for name, found in everything() if not told(found)}


def told(found: Any) -> str:
    """The docstring; nothing where a dataclass made one up, which is its signature."""
    text = inspect.getdoc(found) or ""
    return "" if inspect.isclass(found) and text.startswith(f"{found.__name__}(") else text


@pytest.mark.parametrize("surface", [inferlet, aio], ids=["sync", "aio"])
def test_errors_are_told(surface: Any) -> None:
    for name, wanted in RAISES.items():
        found = surface
        for part in name.split("."):
            found = getattr(found, part)
        assert all(f"`{error}`" in told(found) for error in wanted.split()), name


def test_errors_that_are_told_are_there() -> None:
    known = {*vars(errors), *vars(client), *vars(builtins)}
    for name, found in everything():
        assert set(re.findall(r"Raises `(\w+)`", told(found))) <= known, name
