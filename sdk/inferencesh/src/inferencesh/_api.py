"""One call of the server's API as a flow: headers, retries, the envelope around answers, errors."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, Callable
from urllib.parse import quote, urlencode

from inferencesh._env import Settings
from inferencesh._errors import APIError, ConnectionFailed, error_from
from inferencesh._flow import Flow, Reply, Request, Sleep, send

Message = dict[str, Any]

VERSION = "0.1.0"
MAX_PAUSE = 60.0
"""A server that asks for a longer pause than this is not waited for; the error says how long it would be."""

BUSY = (429, 502, 503, 504)

_HARMLESS = ("/list", "/cancel", "/keepalive", "/files")
"""Ends of paths whose POST may be sent twice: an upload that is announced and never sent expires by itself."""

log = logging.getLogger("inferencesh")


def log_message(message: Message) -> None:
    """What is done with the server's remarks unless the client is given an ``on_message``: they are logged."""
    level = logging.WARNING if message.get("level") in ("warning", "error") else logging.INFO
    log.log(level, "%s", message.get("message") or message.get("code") or message)


def backoff(attempt: int) -> float:
    """Seconds before the retry number *attempt*, counted from 0."""
    return float(min(0.25 * 2**attempt, 8.0))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header, which holds seconds or a date; None without one that can be read."""
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        return _until(text)


def _until(text: str) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return max(0.0, (moment - datetime.now(timezone.utc)).total_seconds())


def dumps(value: Any, what: str) -> bytes:
    """*value* as JSON; dates, UUIDs and their like in the form that pydantic gives them.

    Raises ValueError naming *what* for something that JSON cannot hold.
    """
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"), default=_plain).encode()
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} cannot be sent as JSON: {error}") from error


def _plain(value: Any) -> Any:
    from pydantic_core import to_jsonable_python  # few inputs need it, and it is slow to import

    return to_jsonable_python(value)


def segment(text: str) -> str:
    """*text* as one part of a URL's path."""
    return quote(text, safe="")


class Api:
    """Builds requests and reads answers. Knows the server's address and key; does no I/O."""

    def __init__(
        self,
        settings: Settings,
        on_message: Callable[[Message], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings, self.clock = settings, clock
        self._on_message = on_message or log_message

    def request(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Request:
        """An authorised request. *path* begins with a slash; of *query* what is None is left out.

        POST is taken as not repeatable unless it carries an ``Idempotency-Key`` or ends as `_HARMLESS` says.
        """
        found = {name: value for name, value in (query or {}).items() if value is not None}
        url = self.settings.base_url + path + (f"?{urlencode(found)}" if found else "")
        all_headers = {
            "Authorization": f"Bearer {self.settings.api_key}",
            "User-Agent": f"bakehouse-inferencesh/{VERSION}",
            "Accept": "application/json",
            **({"Content-Type": "application/json"} if body is not None else {}),
            **(headers or {}),
        }
        content = None if body is None else dumps(body, "the request")
        repeatable = method != "POST" or "Idempotency-Key" in all_headers or path.endswith(_HARMLESS)
        return Request(method, url, all_headers, content, timeout or self.settings.timeout, repeatable)

    def call(self, method: str, path: str, **options: Any) -> Flow[Any]:
        """Send (see ``request``) and return the answer's data. Raises APIError and ConnectionFailed."""
        data, _ = yield from self.exchange(self.request(method, path, **options))
        return data

    def exchange(self, request: Request) -> Flow[tuple[Any, list[Message]]]:
        """Send with retries; returns the answer's data and messages. Raises APIError and ConnectionFailed."""
        reply = yield from self.send(request)
        if reply.status >= 400:
            raise error_from(reply.status, reply.body, retry_after(reply.headers))
        return self.unwrap(reply)

    def send(self, request: Request) -> Flow[Reply]:
        """Send; again where the connection broke and repeating is safe, or after the pause of a busy server."""
        attempt = 0
        while True:
            last = attempt >= self.settings.max_retries
            try:
                reply = yield from send(request)
            except ConnectionFailed as error:
                if last or not (request.repeatable or error.unsent):
                    raise
                pause = backoff(attempt)
            else:
                wanted = self.pause_for(request, reply, attempt)
                if wanted is None or last:
                    return reply
                pause = wanted
            attempt += 1
            yield Sleep(pause)

    @staticmethod
    def pause_for(request: Request, reply: Reply, attempt: int) -> float | None:
        """Seconds to wait before sending *request* again, or None when *reply* is the answer."""
        if reply.status not in BUSY or not request.repeatable:
            return None
        wanted = retry_after(reply.headers)
        if wanted is None:
            return backoff(attempt)
        return wanted if wanted <= MAX_PAUSE else None

    def unwrap(self, reply: Reply) -> tuple[Any, list[Message]]:
        """Data and messages of a successful answer; messages are handed to ``on_message``."""
        if not reply.body.strip():
            return None, []
        try:
            value = json.loads(reply.body)
        except ValueError as error:
            raise APIError(
                reply.status,
                "the answer is not JSON; is base_url the address of the API?",
                reply.body[:500].decode("utf-8", "replace"),
            ) from error
        if not isinstance(value, dict) or "data" not in value:
            return value, []
        messages = [message for message in value.get("messages") or [] if isinstance(message, dict)]
        for message in messages:
            self._on_message(message)
        return value["data"], messages
