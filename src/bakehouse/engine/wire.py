"""The engine's messages over a Unix socket: frames, their content, and the version both ends must share.

A frame is two big-endian 32-bit lengths, then so many bytes of JSON and so many of a **tail**, where bytes and arrays
of the JSON lie. A client says `Hello` first and gets one back; then it sends `Open`, `Call` and `Cancel`, each with a
number of its choice that names its answer. The server sends lists of items, all that one turn of its loop gave:

    ["r", id, value]                    the result of a call; of `generate` it says that the stream begins
    ["c", id, chunk]                    one chunk of a stream; its reader says what it took, by `Call` and `Cancel`
    ["e", id, code, detail, field]      the call or the stream ended in an error; id 0 is the connection's own

Nothing is pickled. Arguments are checked by the signatures of `face` and by the checks of `params` themselves.
"""

from __future__ import annotations

import inspect
import math
import struct
import sys
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from typing import Any, NamedTuple, get_origin, get_type_hints

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from bakehouse.engine import params
from bakehouse.engine.errors import BY_CODE, BadRequest, EngineError, LimitExceeded
from bakehouse.engine.face import AsyncEngine, AsyncSession

VERSION = 1
READ_OUT = -1
MAX_FRAME = 64 * 2**20
_HEAD = struct.Struct(">II")


class WireError(Exception):
    """What came is no frame or no message of ours; the connection cannot go on."""


# Messages of a client


@dataclass(frozen=True, slots=True)
class Hello:
    version: int


@dataclass(frozen=True, slots=True)
class Open:
    """Open session ``session``, a number of the client's choice; answered with the `ModelInfo`."""

    id: int
    session: int
    model: str
    owner: str
    program: str


@dataclass(frozen=True, slots=True)
class Call:
    """Call *method* of session ``session``, or of the engine itself where that is 0.

    ``taken``: pairs of a stream's id and the tokens that its reader has taken, where that changed.
    """

    id: int
    session: int
    method: str
    args: Mapping[str, Any]
    taken: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Cancel:
    """Give up the call ``id``, or close the stream ``id`` of which the reader took ``taken`` tokens.

    A stream is closed so in any case; ``taken`` is `READ_OUT` when its last chunk was taken.
    """

    id: int
    taken: int


Message = Hello | Open | Call | Cancel
_MESSAGES: dict[str, type[Message]] = {"hello": Hello, "open": Open, "call": Call, "cancel": Cancel}
_TAGS = {kind: tag for tag, kind in _MESSAGES.items()}


def message_body(message: Message) -> dict[str, Any]:
    """*message* as the JSON that `read_message` reads; dataclasses of `params` inside are left to `dump`."""
    return {"t": _TAGS[type(message)], **{field.name: getattr(message, field.name) for field in fields(message)}}


def read_message(body: Any) -> Message:
    """The message in *body*. Raises `WireError` for anything else, an unknown or missing field included."""
    if not isinstance(body, dict):
        raise WireError("a message is a JSON object")
    tag = body.pop("t", None)
    kind = _MESSAGES.get(tag) if isinstance(tag, str) else None
    if kind is None:
        raise WireError("a message of an unknown kind")
    hints = _HINTS[kind]
    if body.keys() != hints.keys():
        raise WireError(f"a {_TAGS[kind]} message has the fields {', '.join(hints)}, not {', '.join(body)}")
    for name, wanted in hints.items():
        if not isinstance(body[name], wanted) or isinstance(body[name], bool):
            raise WireError(f"{_TAGS[kind]}.{name} is not of its type")
    if kind is Call and not all(map(_is_pair, body["taken"])):
        raise WireError("call.taken holds pairs of integers")
    return kind(**body)


def _is_pair(value: Any) -> bool:
    return type(value) is list and list(map(type, value)) == [int, int]


def _plain_hints(kind: type[Message]) -> dict[str, type]:
    origins = {name: get_origin(hint) or hint for name, hint in get_type_hints(kind).items()}
    return {name: {Mapping: dict, Sequence: list}.get(origin, origin) for name, origin in origins.items()}


_HINTS = {kind: _plain_hints(kind) for kind in _TAGS}


# Values: dataclasses of params by name, bytes and arrays in the tail

_VALUES: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        params.ModelInfo,
        params.ContextState,
        params.ForwardOutput,
        params.Chunk,
        params.TokenLogprobs,
        params.Embedding,
        params.Distribution,
        params.Text,
        params.Thinking,
        params.ThinkingDone,
        params.ToolCallStart,
        params.ToolCall,
        params.Done,
    )
}
_ARRAYS = "If"


def result_body(method: str, value: Any) -> Any:
    """What *method* answered as `dump` takes it: the texts of a vocabulary become one block."""
    if method not in ("vocabulary", "special_tokens"):
        return value
    ids, texts = value
    return {"$": "bytes[]", "ids": array("I", ids), "sizes": array("I", map(len, texts)), "data": b"".join(texts)}


class _Writer:
    """Gathers the tail while orjson writes the JSON."""

    def __init__(self) -> None:
        self.tail: list[bytes] = []
        self.size = 0

    def default(self, value: Any) -> Any:
        if isinstance(value, bytes):
            return {"$": "bytes", "at": self._put(value)}
        if isinstance(value, array):
            if value.typecode not in _ARRAYS or value.itemsize != 4:
                raise TypeError(f"an array of {value.typecode!r} cannot be sent")
            return {"$": "array", "of": value.typecode, "at": self._put(_little_endian(value))}
        if isinstance(value, params.TokenLogprobs):
            top = [(token, _finite(logprob)) for token, logprob in value.top]
            return {"$": "TokenLogprobs", "token": value.token, "logprob": _finite(value.logprob), "top": top}
        if is_dataclass(value) and not isinstance(value, type):
            return self._dataclass(value)
        raise TypeError(f"a {type(value).__name__} cannot be sent")

    def _dataclass(self, value: Any) -> dict[str, Any]:
        name = type(value).__name__
        told = {} if name not in _VALUES else {"$": name}
        for field, default in _fields(type(value)):
            found = getattr(value, field)
            if found is not default and found != default:
                told[field] = found
        return told

    def _put(self, data: bytes) -> tuple[int, int]:
        at = self.size
        self.tail.append(data)
        self.size += len(data)
        return at, len(data)


_NEVER = object()
_FIELDS: dict[type, tuple[tuple[str, Any], ...]] = {}


def _fields(kind: type) -> tuple[tuple[str, Any], ...]:
    """Names and defaults; a field without a default, or whose default is made, is always sent."""
    found = _FIELDS.get(kind)
    if found is None:
        told: Any = kind
        found = tuple((it.name, it.default if it.default is not MISSING else _NEVER) for it in fields(told))
        _FIELDS[kind] = found
    return found


def _finite(value: float) -> float | str:
    """JSON has no infinities."""
    return value if math.isfinite(value) else repr(value)


def _little_endian(value: array[Any]) -> bytes:
    if sys.byteorder == "big":
        value = array(value.typecode, value)
        value.byteswap()
    return value.tobytes()


def load_value(value: Any, tail: memoryview) -> Any:
    """What a result was on the other side; arrays of JSON become tuples. Raises `WireError`."""
    if type(value) is list:
        if set(map(type, value)) <= _PLAIN:
            return tuple(value)
        return tuple(load_value(item, tail) for item in value)
    if type(value) is not dict:
        return value
    name = value.get("$")
    if name is None:
        return {key: load_value(item, tail) for key, item in value.items()}
    try:
        return _tagged(name, value, tail)
    except (KeyError, TypeError, ValueError) as error:
        raise WireError(f"a {name} that cannot be read: {error}") from error


_PLAIN = {int, float, str, bool, type(None)}


def _tagged(name: str, value: dict[str, Any], tail: memoryview) -> Any:
    if name == "bytes":
        return bytes(_cut(value["at"], tail))
    if name == "array":
        return _array(value, tail)
    if name == "bytes[]":
        return list(_array(value["ids"], tail)), list(_split(value, tail))
    found = {key: load_value(item, tail) for key, item in value.items() if key != "$"}
    if name == "Chunk" and "finish" in found:
        found["finish"] = params.FinishReason(found["finish"])
    if name == "TokenLogprobs":
        found["logprob"] = float(found["logprob"])
        found["top"] = tuple((token, float(logprob)) for token, logprob in found["top"])
    return _VALUES[name](**found)


def _cut(at: Sequence[int], tail: memoryview) -> memoryview:
    start, size = at
    if start < 0 or size < 0 or start + size > len(tail):
        raise ValueError("it reaches over the end of its frame")
    return tail[start : start + size]


def _array(value: Mapping[str, Any], tail: memoryview) -> array[Any]:
    if value["of"] not in _ARRAYS:
        raise ValueError(f"an array of {value['of']!r}")
    found: array[Any] = array(value["of"])
    found.frombytes(_cut(value["at"], tail))
    if sys.byteorder == "big":
        found.byteswap()
    return found


def _split(value: Mapping[str, Any], tail: memoryview) -> Iterator[bytes]:
    data, at = _cut(value["data"]["at"], tail), 0
    for size in _array(value["sizes"], tail):
        yield bytes(data[at : at + size])
        at += size


# Frames


def dump(body: Any) -> bytes:
    """One frame. Raises `LimitExceeded` where it would be larger than a frame may be."""
    writer = _Writer()
    text = orjson.dumps(body, default=writer.default, option=orjson.OPT_PASSTHROUGH_DATACLASS)
    if len(text) + writer.size > MAX_FRAME:
        raise LimitExceeded(
            f"the message would be {len(text) + writer.size} bytes long, the limit is {MAX_FRAME}; ask for less at once"
        )
    return b"".join((_HEAD.pack(len(text), writer.size), text, *writer.tail))


class Frame(NamedTuple):
    body: Any
    tail: memoryview


class FrameReader:
    """Bytes in, whole frames out."""

    def __init__(self, limit: int = MAX_FRAME) -> None:
        self._limit = limit
        self._data = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that *data* completes. Raises `WireError`, after which the reader is of no use."""
        self._data += data
        found, at = [], 0
        while len(self._data) - at >= _HEAD.size:
            text, tail = _HEAD.unpack_from(self._data, at)
            if text + tail > self._limit:
                raise WireError(f"a frame of {text + tail} bytes; the limit is {self._limit}")
            start = at + _HEAD.size
            at = start + text + tail
            if len(self._data) < at:
                at = start - _HEAD.size
                break
            found.append(
                Frame(_parse(self._data[start : start + text]), memoryview(bytes(self._data[start + text : at])))
            )
        if at:
            del self._data[:at]
        return found


def _parse(text: bytearray) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise WireError(f"a frame is not JSON: {error}") from error


# Calls: what may be called, with which arguments

SESSION_CALLS = frozenset(AsyncSession.__abstractmethods__)
ENGINE_CALLS = frozenset({"models", "stats"})


@cache
def _arguments(method: str, of_engine: bool) -> type[BaseModel]:
    function = getattr(AsyncEngine if of_engine else AsyncSession, method)
    hints = get_type_hints(function)
    given: dict[str, Any] = {
        name: (hints[name], ... if parameter.default is inspect.Parameter.empty else parameter.default)
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "self"
    }
    return create_model(f"{method}_arguments", __config__=ConfigDict(extra="forbid"), **given)


def read_arguments(call: Call) -> dict[str, Any]:
    """The arguments of *call*, by name, checked and converted. Raises `BadRequest` that names the field."""
    known = ENGINE_CALLS if call.session == 0 else SESSION_CALLS
    if call.method not in known:
        raise BadRequest.at("method", f"there is no call {call.method!r}")
    model = _arguments(call.method, call.session == 0)
    try:
        read = model.model_validate(call.args)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise BadRequest.at(".".join(map(str, first["loc"])) or call.method, str(first["msg"])) from None
    return {name: getattr(read, name) for name in model.model_fields}


def error_item(identity: int, error: EngineError) -> list[Any]:
    return ["e", identity, error.code, error.detail, error.field]


def read_error(code: Any, detail: Any, field: Any) -> EngineError:
    """The error that the other side sent; a code that is not known here becomes the root of the tree."""
    return BY_CODE.get(str(code), EngineError)(str(detail), field=None if field is None else str(field))
