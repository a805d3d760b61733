"""The child's end of the message socket: batches both ways.

Any thread posts. What is posted urgently goes out at once together with all that waited; the rest waits for the
ticker, at most a few milliseconds. Sending blocks when the server does not read: that bounds memory.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Callable

from . import messages

READ_BYTES = 256 * 1024
HOLD_BYTES = 256 * 1024
HOLD_SECONDS = 0.002


class Ticker:
    """One thread that calls back once after a deadline was asked for; free when nothing waits."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._due = float("inf")
        self._callbacks: list[Callable[[], None]] = []
        self._thread = threading.Thread(target=self._run, name="bakehouse-ticker", daemon=True)

    def start(self) -> None:
        """Begin; callbacks are added before."""
        self._thread.start()

    def add(self, callback: Callable[[], None]) -> None:
        """Register what every tick calls, in order of registration."""
        self._callbacks.append(callback)

    def within(self, seconds: float) -> None:
        """Tick at the latest after ``seconds``."""
        due = time.monotonic() + seconds
        if due >= self._due:
            return  # a stale read costs one early tick at most
        with self._condition:
            if due < self._due:
                self._due = due
                self._condition.notify()

    def _run(self) -> None:
        while True:
            with self._condition:
                while (left := self._due - time.monotonic()) > 0:
                    self._condition.wait(None if self._due == float("inf") else left)
                self._due = float("inf")
            for callback in self._callbacks:
                callback()


class Channel:
    """Frames out, batched; messages in, by a thread of their own."""

    def __init__(self, connection: socket.socket, ticker: Ticker) -> None:
        self._socket = connection
        self._ticker = ticker
        self._held = bytearray()
        self._guard = threading.RLock()
        self._sending = threading.Lock()
        self._sender = 0

    def post(self, frame: bytes, hold: bool = False) -> None:
        """Queue one encoded frame behind all earlier ones; send now unless ``hold``."""
        with self._guard:
            self._held += frame
            full = len(self._held) > HOLD_BYTES
        if full or not hold:
            self.flush()
        else:
            self._ticker.within(HOLD_SECONDS)

    def flush(self) -> None:
        """Send all that waits. Blocks while the server does not read; ends the process when it is gone."""
        if self._sender == threading.get_ident():
            return  # a signal handler or destructor of the app printed while this thread was sending
        with self._sending:
            self._sender = threading.get_ident()
            try:
                with self._guard:
                    data, self._held = self._held, bytearray()
                if data:
                    self._socket.sendall(data)
            except OSError:
                os._exit(1)  # nobody is left to report to
            finally:
                self._sender = 0

    def listen(self, receive: Callable[[list[messages.Message]], None], broken: Callable[[str], None]) -> None:
        """Start the reader: ``receive`` gets every batch on its thread; ``broken`` the reason of a bad frame.

        The process ends when the server closes the socket.
        """
        threading.Thread(target=self._read, args=(receive, broken), name="bakehouse-reader", daemon=True).start()

    def _read(self, receive: Callable[[list[messages.Message]], None], broken: Callable[[str], None]) -> None:
        decoder = messages.Decoder(messages.HOST_MESSAGES)
        while True:
            try:
                chunk = self._socket.recv(READ_BYTES)
            except OSError:
                chunk = b""
            if not chunk:
                os._exit(1)  # nobody is left to report to
            try:
                receive(decoder.feed(chunk))
            except messages.FrameError as error:
                broken(str(error))
                return
