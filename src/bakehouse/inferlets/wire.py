"""The messages between an inferlet host and the platform, over a Unix socket; frames are those of the engine's wire.

The platform says ``{"t": "hello", "version": n}`` first and gets the same back. Then it sends calls,
``{"t": name, "id": n, ...}`` with a number of its choice; `taken` has none and no answer. The host sends lists of
items:

    ["r", id, value]                    the result of a call
    ["e", id, kind, detail, field]      its error; id 0 is the connection's own
    ["m", instance, text]               a message of an instance to its client
    ["f", instance, data, more]         a part of a file of it; more parts follow, or not
    ["o", instance, stream, text]       what it wrote
    ["x", instance, outcome]            its end

An instance gets no further ahead of its reader than `AHEAD` bytes; ``taken`` says how many more the reader took.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from bakehouse.engine.errors import BY_CODE, EngineError
from bakehouse.engine.wire import FrameReader, WireError, dump, load_value
from bakehouse.inferlets import errors
from bakehouse.inferlets.base import Failure, Launch, Limits, Outcome
from bakehouse.inferlets.errors import InferletError

__all__ = ["FrameReader", "WireError", "dump", "load_value"]

VERSION = 1
AHEAD = 1 << 20
"""Bytes of output that an instance may be ahead of its reader; then its thread waits."""
PART = 4 << 20
"""Bytes of a file in one frame."""

_ERRORS: dict[str, type[InferletError]] = {
    kind.__name__: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, InferletError)
}


def launch_body(launch: Launch) -> dict[str, Any]:
    """*launch* as JSON."""
    return {**asdict(launch), "arguments": list(launch.arguments)}


def read_launch(body: Any) -> Launch:
    """The launch in *body*. Raises `WireError`."""
    try:
        limits = Limits(**body["limits"])
        return Launch(**{**body, "limits": limits, "arguments": tuple(body["arguments"])})
    except (KeyError, TypeError, ValueError) as error:
        raise WireError(f"a launch that cannot be read: {error}") from error


def outcome_body(outcome: Outcome) -> dict[str, Any]:
    """*outcome* as JSON."""
    return {"result": outcome.result, "failure": None if outcome.failure is None else asdict(outcome.failure)}


def read_outcome(body: Mapping[str, Any]) -> Outcome:
    """The outcome in *body*. Raises `WireError`."""
    try:
        failure = body["failure"]
        return Outcome(body["result"], None if failure is None else Failure(**failure))
    except (KeyError, TypeError) as error:
        raise WireError(f"an outcome that cannot be read: {error}") from error


def error_item(identity: int, error: InferletError | EngineError) -> list[Any]:
    """*error* as the answer to the call *identity*."""
    kind = type(error).__name__ if isinstance(error, InferletError) else error.code
    return ["e", identity, kind, error.detail, error.field]


def read_error(kind: Any, detail: Any, field: Any) -> InferletError | EngineError:
    """The error that the host sent; one that is not known here becomes an `InferletError`."""
    named = None if field is None else str(field)
    found = _ERRORS.get(str(kind)) or BY_CODE.get(str(kind)) or InferletError
    return found(str(detail), field=named)


def text_of(body: Mapping[str, Any], name: str) -> str:
    """The text *name* of a call. Raises `WireError`."""
    value = body.get(name)
    if not isinstance(value, str):
        raise WireError(f"{name} is not a text")
    return value


LIMIT_NAMES = tuple(field.name for field in fields(Limits))
