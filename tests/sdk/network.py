"""The far end of a client, played by hand: what a flow asks for is answered from a script, and time is a number."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from inferencesh._api import Api
from inferencesh._env import Settings
from inferencesh._errors import ConnectionFailed
from inferencesh._flow import Call, Close, Emit, Flow, Open, Read, Reply, Request, Send, Sleep, Steps
from inferencesh._models import Task

T = TypeVar("T")

BROKEN = ConnectionFailed("the connection broke")
REFUSED = ConnectionFailed("nobody listens", unsent=True)


def ok(data: Any, **envelope: Any) -> Reply:
    """An answer in the server's envelope."""
    return Reply(200, {}, json.dumps({"success": True, "data": data, **envelope}).encode())


def refusal(status: int, code: str = "", detail: str = "no", **more: Any) -> Reply:
    """A problem document; ``headers`` among *more* become the answer's."""
    headers = more.pop("headers", {})
    return Reply(status, headers, json.dumps({"detail": detail, "code": code, **more}).encode())


def line(status: int = 7, seq: int | None = None, **more: Any) -> bytes:
    """One line of a task's stream."""
    values = {"id": "task_1", "status": status, "logs": [], **({} if seq is None else {"seq": seq}), **more}
    return json.dumps(values).encode() + b"\n"


class Network:
    """Answers for flows. ``replies`` are for whole requests, ``streams`` for opened ones: a Reply or a list of chunks.

    A chunk is bytes, an exception, or a number of seconds that pass. A stream ends after its last chunk.
    """

    def __init__(self, replies: list[Any] | None = None, streams: list[Any] | None = None) -> None:
        self.replies, self.streams = list(replies or []), list(streams or [])
        self.requests: list[Request] = []
        self.sleeps: list[float] = []
        self.emitted: list[Task] = []
        self.closed = 0
        self.now = 1000.0
        self._chunks: list[Any] = []
        settings = Settings("http://far", "key", 30.0, 3)
        self.messages: list[Any] = []
        self.api = Api(settings, self.messages.append, clock=lambda: self.now)

    def play(self, flow: Flow[T]) -> T:
        """Carry *flow* out and return its result."""
        steps = Steps(flow)
        for op in steps:
            try:
                steps.reply(self._answer(op))
            except ConnectionFailed as error:
                steps.fail(error)
        return steps.value

    @property
    def paths(self) -> list[str]:
        return [f"{request.method} {request.url.removeprefix('http://far')}" for request in self.requests]

    def _answer(self, op: Any) -> Any:
        if isinstance(op, Send):
            self.requests.append(op.request)
            return _given(self.replies.pop(0))
        if isinstance(op, Open):
            return self._open(op.request)
        if isinstance(op, Read):
            return self._read()
        if isinstance(op, Sleep):
            self.sleeps.append(op.seconds)
            self.now += op.seconds
        elif isinstance(op, Emit):
            self.emitted.append(op.update)
        elif isinstance(op, Call):
            op.function(op.update)
        else:
            assert isinstance(op, Close)
            self.closed += 1
        return None

    def _open(self, request: Request) -> Reply:
        self.requests.append(request)
        stream = _given(self.streams.pop(0))
        if isinstance(stream, Reply):
            self._chunks = [stream.body] if stream.body else []
            return stream
        self._chunks = list(stream)
        return Reply(200, {})

    def _read(self) -> bytes:
        while self._chunks:
            chunk = _given(self._chunks.pop(0))
            if isinstance(chunk, bytes):
                return chunk
            self.now += chunk
        return b""


def _given(value: Any) -> Any:
    if isinstance(value, Exception):
        raise value
    return value
