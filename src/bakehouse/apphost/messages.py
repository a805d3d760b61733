"""The messages between the server and an app's child process: framing, constructors, checks.

A frame is a 4-byte big-endian length and that many bytes of UTF-8 JSON holding one object, whose key ``t`` names
its type. Both sides import this one file: the server as ``bakehouse.apphost.messages``, the child by path. That is
why it uses the standard library only and stays readable for Python 3.9.
"""

from __future__ import annotations

import json
import struct
from typing import Any, Callable

PROTOCOL = 1
MAX_FRAME = 64 * 1024 * 1024

Message = dict[str, Any]

ERROR_CODES = (
    "app_error",
    "invalid_input",
    "invalid_output",
    "no_output",
    "function_not_found",
    "output_file",
    "exit",
)

_LENGTH = struct.Struct(">I")
_OPTIONAL = type(None)
_Fields = dict[str, tuple[type, ...]]

# What each side may send: type -> field -> accepted Python types. A field that accepts None may be left out.
HOST_MESSAGES: dict[str, _Fields] = {
    "hello": {
        "protocol": (int,),
        "mode": (str,),
        "app_dir": (str,),
        "dirs": (dict,),
        "setup": (dict, _OPTIONAL),
        "concurrency": (int,),
        "ids": (dict,),
        "functions": (list, _OPTIONAL),
    },
    "call": {"id": (str,), "attempt": (int,), "function": (str,), "input": (dict,), "context": (dict,)},
    "cancel": {"id": (str,)},
    "inbox": {"id": (str,), "item": (object,)},
    "stop": {},
}
CHILD_MESSAGES: dict[str, _Fields] = {
    "hello": {"protocol": (int,), "pid": (int,), "python": (str,)},
    "described": {
        "functions": (list,),
        "setup_schema": (dict, _OPTIONAL),
        "default_function": (str, _OPTIONAL),
        "class_name": (str,),
        "concurrency_ok": (bool,),
    },
    "ready": {},
    "failed": {"stage": (str,), "error": (dict,)},
    "started": {"id": (str,)},
    "log": {"id": (str, _OPTIONAL), "stream": (str,), "level": (str, _OPTIONAL), "lines": (list,)},
    "progress": {"id": (str,), "current": (int, float), "total": (int, float), "message": (str, _OPTIONAL)},
    "partial": {"id": (str,), "output": (object,), "files": (list, _OPTIONAL)},
    "delta": {"id": (str,), "delta": (object,)},
    "result": {"id": (str,), "output": (object,), "files": (list,)},
    "error": {"id": (str,), "error": (dict,)},
    "cancelled": {"id": (str,)},
}


class FrameError(ValueError):
    """The peer broke the protocol; ``frames`` holds the good messages that came before the bad one."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.frames: list[Message] = []


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=True, separators=(",", ":")).encode
_decode = json.JSONDecoder(parse_constant=_refuse_constant).decode


def encode(message: Message) -> bytes:
    """One frame, ready to send.

    Lone surrogates become ``?``: an app's stray bytes must not cost it its log line. Raises ``ValueError`` for NaN,
    infinities, circular values and frames over `MAX_FRAME`; ``TypeError`` for what JSON cannot say.
    """
    body = _encode(message).encode("utf-8", "replace")
    if len(body) > MAX_FRAME:
        raise ValueError(f"the message is {len(body)} bytes long, the limit is {MAX_FRAME}")
    return _LENGTH.pack(len(body)) + body


def _parse(body: bytes) -> Message:
    try:
        message = _decode(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FrameError(f"a frame is not JSON: {error}") from error
    if not isinstance(message, dict):
        raise FrameError("a frame is not a JSON object")
    return message


def check(message: Message, known: dict[str, _Fields]) -> Message:
    """The same message, if its type is known and its fields have the right types; else raises `FrameError`.

    Fields beyond the table are let through, so that a newer peer of the same protocol may say more.
    """
    kind = message.get("t")
    fields = known.get(kind) if isinstance(kind, str) else None
    if fields is None:
        raise FrameError(f"a frame has the unknown type {kind!r}")
    for name, types in fields.items():
        value = message.get(name)
        right = isinstance(value, types) and (not isinstance(value, bool) or bool in types or object in types)
        if not right or (name not in message and _OPTIONAL not in types):
            raise FrameError(f"the frame {kind!r} has a bad field {name!r}: {type(value).__name__}")
    return message


class Decoder:
    """Turns chunks of bytes into checked messages; keeps at most one unfinished frame.

    ``known`` is `CHILD_MESSAGES` on the server and `HOST_MESSAGES` in the child.
    """

    def __init__(self, known: dict[str, _Fields], parse: Callable[[bytes], Message] = _parse) -> None:
        self._known = known
        self._parse = parse
        self._buffer = bytearray()

    @property
    def pending(self) -> int:
        """Bytes of an unfinished frame; more than 0 at the end of the stream means a cut message."""
        return len(self._buffer)

    def feed(self, chunk: bytes) -> list[Message]:
        """All messages that ``chunk`` completes. Raises `FrameError` for garbage; the decoder is then of no use."""
        self._buffer += chunk
        frames: list[Message] = []
        try:
            start = self._take(frames)
        except FrameError as error:
            error.frames = frames
            raise
        del self._buffer[:start]
        return frames

    def _take(self, frames: list[Message]) -> int:
        buffer, start, available = self._buffer, 0, len(self._buffer)
        while available - start >= 4:
            (length,) = _LENGTH.unpack_from(buffer, start)
            if length > MAX_FRAME:
                raise FrameError(f"a frame claims {length} bytes, the limit is {MAX_FRAME}")
            end = start + 4 + length
            if end > available:
                break
            frames.append(check(self._parse(bytes(buffer[start + 4 : end])), self._known))
            start = end
        return start


# Host -> child


def host_hello(
    mode: str,
    app_dir: str,
    dirs: dict[str, str],
    ids: dict[str, str],
    setup: dict[str, Any] | None = None,
    concurrency: int = 1,
    functions: list[str] | None = None,
) -> Message:
    """The first message: ``mode`` is ``serve`` or ``describe``; ``dirs`` has work, temp, cache and outbox."""
    return {
        "t": "hello",
        "protocol": PROTOCOL,
        "mode": mode,
        "app_dir": app_dir,
        "dirs": dirs,
        "setup": setup,
        "concurrency": concurrency,
        "ids": ids,
        "functions": functions,
    }


def call(
    task_id: str, attempt: int, function: str, input_: dict[str, Any], context: dict[str, Any] | None = None
) -> Message:
    """Run ``function`` once; an empty name means the app's default function."""
    return {
        "t": "call",
        "id": task_id,
        "attempt": attempt,
        "function": function,
        "input": input_,
        "context": context or {},
    }


def cancel(task_id: str, held_only: bool = False) -> Message:
    """Ask a call to end early; it answers with whichever final message comes first.

    ``held_only``: just if it has not begun, because the server wants to run it elsewhere.
    """
    return {"t": "cancel", "id": task_id, "held_only": True} if held_only else {"t": "cancel", "id": task_id}


def inbox(task_id: str, item: Any) -> Message:
    """One inbox message for a running task."""
    return {"t": "inbox", "id": task_id, "item": item}


def stop() -> Message:
    """Finish what runs, call ``unload``, exit 0."""
    return {"t": "stop"}


# Child -> host


def child_hello(pid: int, python: str) -> Message:
    """The child's first message; ``python`` is its version, such as ``3.11.9``."""
    return {"t": "hello", "protocol": PROTOCOL, "pid": pid, "python": python}


def described(
    functions: list[dict[str, Any]],
    setup_schema: dict[str, Any] | None,
    default_function: str | None,
    class_name: str,
    concurrency_ok: bool,
) -> Message:
    """What the app offers; ``concurrency_ok`` is true when all of its functions are async."""
    return {
        "t": "described",
        "functions": functions,
        "setup_schema": setup_schema,
        "default_function": default_function,
        "class_name": class_name,
        "concurrency_ok": concurrency_ok,
    }


def ready() -> Message:
    """``setup`` has returned; calls run from now on."""
    return {"t": "ready"}


def failed(stage: str, error: Message) -> Message:
    """The instance cannot serve; ``stage`` is ``import``, ``setup`` or ``protocol``; the child then exits 1."""
    return {"t": "failed", "stage": stage, "error": error}


def started(task_id: str) -> Message:
    """The call begins to execute; until then it was only held."""
    return {"t": "started", "id": task_id}


def log(task_id: str | None, stream: str, lines: list[str], level: str | None = None) -> Message:
    """Lines of ``stdout``, ``stderr`` or ``log``; without a task id they belong to the instance."""
    message: Message = {"t": "log", "id": task_id, "stream": stream, "lines": lines}
    if level is not None:
        message["level"] = level
    return message


def progress(task_id: str, current: float, total: float, message: str | None = None) -> Message:
    """How far the call is; only the latest one matters."""
    return {"t": "progress", "id": task_id, "current": current, "total": total, "message": message}


def partial(task_id: str, output: Any, files: list[Message] | None = None) -> Message:
    """The newest partial output; only the latest one matters."""
    return {"t": "partial", "id": task_id, "output": output, "files": files or []}


def delta(task_id: str, item: Any) -> Message:
    """One piece of a stream in which every piece counts."""
    return {"t": "delta", "id": task_id, "delta": item}


def output_file(pointer: str, name: str, filename: str, content_type: str, size: int) -> Message:
    """An entry of ``files``: ``pointer`` (RFC 6901) is null in the output, ``name`` lies in the outbox."""
    return {"pointer": pointer, "name": name, "filename": filename, "content_type": content_type, "size": size}


def result(task_id: str, output: Any, files: list[Message] | None = None) -> Message:
    """The call succeeded."""
    return {"t": "result", "id": task_id, "output": output, "files": files or []}


def error(task_id: str, detail: Message) -> Message:
    """The call failed; ``detail`` is what `error_detail` makes."""
    return {"t": "error", "id": task_id, "error": detail}


def error_detail(
    code: str, type_: str, message: str, traceback: str = "", errors: list[Message] | None = None
) -> Message:
    """An error in words: a short one-line message, the whole traceback beside it.

    ``errors`` (only for ``invalid_input``) lists ``{path, message}`` per wrong field.
    """
    detail: Message = {"code": code, "type": type_, "message": message, "traceback": traceback}
    if errors is not None:
        detail["errors"] = errors
    return detail


def cancelled(task_id: str) -> Message:
    """The call ended because it was asked to."""
    return {"t": "cancelled", "id": task_id}
