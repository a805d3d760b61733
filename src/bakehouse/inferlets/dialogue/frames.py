"""The frames of the client protocol, without any I/O; `docs/inferlet-protocol.md` says what they mean.

A frame is a JSON object in a text frame. One with a ``size`` above 0 is followed by so many bytes in binary frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from bakehouse.inferlets.errors import InferletError, Refused

#: Bytes of one binary frame that we send, and of any frame that we take.
CHUNK, MAX_FRAME = 1 << 20, 16 << 20
MAX_ID = 2**53
#: Bytes that clients may be sending at one time, all together.
ROOM = 1 << 30

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


class Room:
    """Bytes that all clients of a host may be sending at one time. Of one event loop."""

    def __init__(self, most: int = ROOM) -> None:
        self._most, self._used = most, 0

    def take(self, size: int) -> None:
        """Raises `Refused`."""
        if self._used + size > self._most:
            raise Refused(f"{self._used} bytes are on their way from clients, at most {self._most} may be; try again")
        self._used += size

    def give_back(self, size: int) -> None:
        self._used -= size


class Assembly:
    """Puts a client's frames together. *most* says how many bytes may follow a head, or raises.

    Bytes that may not follow are thrown away unread. Those that are awaited have their place in *room*; `close` gives
    it back.
    """

    def __init__(self, most: Callable[[dict[str, Any]], int], room: Room | None = None) -> None:
        self._most = most
        self._room = room or Room()
        self._head: dict[str, Any] | None = None
        self._data = bytearray()  # not a list of frames: many small ones would take a multiple of their bytes
        self._size = 0
        self._missing = 0
        self._unwanted = 0

    def feed(self, frame: Frame) -> Iterator[Whole | BadFrame]:
        """What *frame* completes, and what is wrong. Whatever that is, the next head may follow."""
        if isinstance(frame, str):
            if self._head is not None:
                yield BadFrame(f"{self._missing} bytes are missing before the next frame", self.close())
            step = self._text
        else:
            step = self._bytes
        try:
            whole = step(frame)
        except BadFrame as error:
            yield error
        else:
            if whole is not None:
                yield whole

    def close(self) -> int | None:
        """Give up what is not whole; the id of its request."""
        if self._head is None:
            return None
        number = Whole(self._head).id
        self._room.give_back(self._size)
        self._head, self._data = None, bytearray()
        return number

    def _text(self, frame: Any) -> Whole | None:
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
            if size > most:
                raise TooBig(f"size: at most {most} bytes may follow this frame, not {size}")
            self._room.take(size)
        except InferletError as error:
            raise BadFrame.of(error, Whole(head).id) from None
        self._unwanted = 0
        self._head, self._size, self._missing = head, size, size
        return None

    def _bytes(self, frame: Any) -> Whole | None:
        if self._unwanted:
            self._unwanted = max(0, self._unwanted - len(frame))
            return None
        if self._head is None:
            raise BadFrame("bytes came that no frame before them told of")
        if len(frame) > self._missing or not frame:
            missing, number = self._missing, self.close()
            raise BadFrame(f"{missing} bytes were to follow, and {len(frame)} came", number)
        self._missing -= len(frame)
        if self._missing or self._data:
            self._data += frame
        if self._missing:
            return None
        whole = Whole(self._head, bytes(self._data) if self._data else frame)
        self.close()
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
