"""A small HTTP server that follows a script over real sockets: it answers, stalls, cuts connections and lies."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Step = Callable[["Exchange"], None]


@dataclass
class Heard:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Exchange(BaseHTTPRequestHandler):
    """One connection. A step of the script answers each of its requests."""

    protocol_version = "HTTP/1.1"
    server: FarEnd

    def _serve(self) -> None:
        length = self.headers.get("Content-Length")
        body = self.rfile.read(int(length)) if length else self._chunked()
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.heard.append(Heard(self.command, self.path, headers, body))
        self.server.next_step(self.command, self.path)(self)

    do_GET = do_POST = do_PUT = do_DELETE = _serve

    def _chunked(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return b""
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def begin_stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def piece(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.flush()

    def end_stream(self) -> None:
        self.wfile.write(b"0\r\n\r\n")

    def cut(self) -> None:
        """Drop the connection without a word."""
        self.close_connection = True
        self.connection.close()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are kept in ``heard``."""


class FarEnd(ThreadingHTTPServer):
    """Steps are taken in order, per method and path as far as ``?``; one that is missing fails the request."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.heard: list[Heard] = []
        self.released = threading.Event()
        self._steps: dict[tuple[str, str], list[Step]] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def paths(self) -> list[str]:
        return [f"{heard.method} {heard.path}" for heard in self.heard]

    def on(self, method: str, path: str, *steps: Step) -> None:
        self._steps.setdefault((method, path), []).extend(steps)

    def next_step(self, method: str, path: str) -> Step:
        steps = self._steps.get((method, path.split("?", maxsplit=1)[0]), [])
        return steps.pop(0) if steps else reply({"detail": f"the script has no step for {method} {path}"}, status=418)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left is part of most scripts."""


@contextmanager
def far_end() -> Iterator[FarEnd]:
    """A running far end; whatever stalls is released at the end."""
    server = FarEnd()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


def reply(body: Any, status: int = 200, **headers: str) -> Step:
    """A whole answer; *body* as JSON unless it is bytes."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda exchange: exchange.answer(status, data, **headers)


def data(value: Any) -> Step:
    """A successful answer in the envelope."""
    return reply({"success": True, "status": 200, "data": value, "messages": []})


def stream(*pieces: bytes, end: bool = True) -> Step:
    """A stream of *pieces*, cut off afterwards unless it *end*s."""

    def step(exchange: Exchange) -> None:
        exchange.begin_stream()
        for piece in pieces:
            exchange.piece(piece)
        exchange.end_stream() if end else exchange.cut()

    return step


def stall(*pieces: bytes) -> Step:
    """A stream that says *pieces* and then nothing until the script is over."""

    def step(exchange: Exchange) -> None:
        exchange.begin_stream()
        for piece in pieces:
            exchange.piece(piece)
        exchange.server.released.wait()

    return step


def cut(exchange: Exchange) -> None:
    """Drop the connection instead of answering."""
    exchange.cut()
