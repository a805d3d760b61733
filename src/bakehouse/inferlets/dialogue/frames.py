"""The frames of the client protocol, without any I/O; `docs/inferlet-protocol.md` says what they mean.

A frame is a JSON object in a text frame. One with a ``size`` above 0 is followed by so many bytes in binary frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from bakehouse.inferlets.errors import InferletError

#: Bytes of one binary frame that we send, and of any frame that we take.
CHUNK, MAX_FRAME = 1 << 20, 16 << 20
MAX_ID = 2**53

Frame = str | bytes


class BadFrame(InferletError):
    """What a client sent is no frame of the protocol. ``id`` is the request's, where it has one."""

    code = "bad_frame"

    def __init__(self, detail: str, number: int | None = None) -> None:
        super().__init__(detail)
        self.id = number

    @classmethod
    def of(cls, error: InferletError, number: int | None) -> BadFrame:
        """*error* as the answer to a frame."""
        found = cls(error.detail, number)
        found.code = error.code
        return found


class TooBig(BadFrame):
    code = "too_large"


@dataclass(frozen=True, slots=True)
class Whole:
    """A frame with the bytes that belong to it."""

    head: dict[str, Any]
    data: bytes = b""

    @property
    def id(self) -> int | None:
        number = self.head.get("id")
        return number if _is_id(number) else None


class Assembly:
    """Puts a client's frames together. *most* says how many bytes may follow a head, or raises.

    Bytes that may not follow are thrown away unread.
    """

    def __init__(self, most: Callable[[dict[str, Any]], int]) -> None:
        self._most = most
        self._head: dict[str, Any] | None = None
        self._parts: list[bytes] = []
        self._missing = 0
        self._unwanted = 0

    def feed(self, frame: Frame) -> Whole | None:
        """What *frame* completes, if it does. Raises `BadFrame`, after which the next head may follow."""
        return self._text(frame) if isinstance(frame, str) else self._bytes(frame)

    def _text(self, frame: str) -> Whole | None:
        if self._head is not None:
            number, self._head, self._parts = Whole(self._head).id, None, []
            raise BadFrame(f"{self._missing} bytes are missing before the next frame", number)
        self._unwanted = 0
        head = _object(frame)
        size = head.get("size", 0)
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise BadFrame(f"size: must be a number of bytes, not {size!r}", Whole(head).id)
        if not size:
            return Whole(head)
        self._unwanted = size
        try:
            most = self._most(head)
        except InferletError as error:
            raise BadFrame.of(error, Whole(head).id) from None
        if size > most:
            raise TooBig(f"size: at most {most} bytes may follow this frame, not {size}", Whole(head).id)
        self._unwanted = 0
        self._head, self._missing = head, size
        return None

    def _bytes(self, frame: bytes) -> Whole | None:
        if self._unwanted:
            self._unwanted = max(0, self._unwanted - len(frame))
            return None
        if self._head is None:
            raise BadFrame("bytes came that no frame before them told of")
        if len(frame) > self._missing or not frame:
            number, self._head, self._parts = Whole(self._head).id, None, []
            raise BadFrame(f"{self._missing} bytes were to follow, and {len(frame)} came", number)
        self._parts.append(frame)
        self._missing -= len(frame)
        if self._missing:
            return None
        whole = Whole(self._head, self._parts[0] if len(self._parts) == 1 else b"".join(self._parts))
        self._head, self._parts = None, []
        return whole


def _object(frame: str) -> dict[str, Any]:
    try:
        head = orjson.loads(frame)
    except orjson.JSONDecodeError as error:
        raise BadFrame(f"not JSON: {error}") from None
    if not isinstance(head, dict):
        raise BadFrame("a frame is a JSON object")
    return head


def _is_id(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number < MAX_ID


def answer(number: int, result: Mapping[str, Any]) -> str:
    frame = encode({"id": number, "result": result})
    if fits(frame):
        return frame
    return refusal(number, "too_large", f"the answer has {len(frame)} characters; a frame has {MAX_FRAME} bytes")


def fits(frame: str) -> bool:
    """Whether *frame* has at most `MAX_FRAME` bytes."""
    # A character has four bytes at most, so that most need not be counted.
    return len(frame) * 4 <= MAX_FRAME or len(frame.encode()) <= MAX_FRAME


def refusal(number: int | None, code: str, message: str, **more: Any) -> str:
    return encode({"id": number, "error": {"code": code, "message": message, **more}})


def encode(frame: Mapping[str, Any]) -> str:
    """As JSON. What a guest said may hold half a surrogate pair, which UTF-8 cannot: it becomes a question mark."""
    try:
        return orjson.dumps(frame).decode()
    except TypeError:
        return orjson.dumps(_whole(frame)).decode()


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {key: _whole(item) for key, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list) else value


def with_bytes(head: dict[str, Any], data: bytes) -> Iterator[Frame]:
    """*head*, told the size of *data*, and *data* in chunks."""
    yield encode({**head, "size": len(data)})
    view = memoryview(data)
    for start in range(0, len(data), CHUNK):
        yield bytes(view[start : start + CHUNK])
