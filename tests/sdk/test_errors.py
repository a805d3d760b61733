"""The tree of errors: everything raised belongs to it, and says what to do."""

from __future__ import annotations

import inspect
import json
from typing import Any

import httpx
import inferencesh
import pytest
from inferencesh import APIError, ConnectionFailed, InferenceError, RequirementsNotMetError
from inferencesh import _errors as errors
from inferencesh._api import retry_after
from inferencesh._drivers import mapped
from inferencesh._errors import error_from


def test_every_error_has_the_root_and_is_exported() -> None:
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]
    assert all(issubclass(kind, InferenceError) for kind in kinds)
    assert {kind.__name__ for kind in kinds} <= set(inferencesh.__all__)
    assert all(kind.__doc__ for kind in kinds)


HTTPX = [
    kind
    for _, kind in inspect.getmembers(httpx, inspect.isclass)
    if issubclass(kind, Exception) and not issubclass(kind, Warning)
]


@pytest.mark.parametrize("kind", HTTPX)
def test_nothing_of_the_http_library_escapes(kind: type[Exception]) -> None:
    made = kind.__new__(kind)
    made.args = ("why",)
    with pytest.raises(ConnectionFailed, match="why") as caught, mapped("http://far"):
        raise made
    assert caught.value.__cause__ is made


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "BadRequest"), (401, "Unauthorized"), (403, "Forbidden"), (404, "NotFound"), (409, "Conflict"),
        (410, "Gone"), (412, "RequirementsNotMetError"), (413, "TooLarge"), (418, "APIError"), (422, "ValidationError"),
        (429, "RateLimited"), (500, "ServerError"), (501, "NotConfigured"), (503, "Unavailable"), (504, "ServerError"),
    ],
)  # fmt: skip
def test_each_status_has_its_kind(status: int, kind: str) -> None:
    error = error_from(status, b'{"detail": "because", "code": "some_code"}')
    assert (type(error).__name__, error.status_code, error.code, error.message) == (
        kind,
        status,
        "some_code",
        "because",
    )
    assert f"HTTP {status}: because" in str(error)


@pytest.mark.parametrize(
    ("body", "detail", "code"),
    [
        (b'{"detail": "d", "title": "t"}', "d", None),
        (b'{"title": "t", "type": "https://x/errors/not_found"}', "t", "not_found"),
        (b'{"message": "m"}', "m", None),
        (b'{"error": {"code": "c", "message": "m"}}', "m", "c"),
        (b'{"error": "plain"}', "plain", None),
        (b"<html>bad gateway</html>", "<html>bad gateway</html>", None),
        (b"\xff\xfe", "\ufffd\ufffd", None),
        (b"[1]", "[1]", None),
        (b"", "the server gave no reason", None),
    ],
)
def test_any_layout_of_an_error_is_understood(body: bytes, detail: str, code: str | None) -> None:
    error = error_from(400, body)
    assert (error.detail, error.code) == (detail, code)


def test_what_must_be_set_up_is_data() -> None:
    action = {"type": "add_secret", "provider": "hub", "scopes": ["a"]}
    body = {"detail": "d", "errors": [{"type": "secret", "key": "TOKEN", "message": "set it", "action": action}]}
    error = error_from(412, json.dumps(body).encode())
    assert isinstance(error, RequirementsNotMetError)
    (requirement,) = error.errors
    assert (requirement.key, requirement.message) == ("TOKEN", "set it")
    assert (requirement.action.type, requirement.action.provider, requirement.action.scopes) == (
        "add_secret",
        "hub",
        ("a",),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [("5", 5.0), ("0.5", 0.5), ("-3", 0.0), ("", None), ("soon", None), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0)],
)
def test_retry_after(text: str, expected: float | None) -> None:
    assert retry_after({"retry-after": text} if text else {}) == expected


def test_retry_after_counts_to_a_date() -> None:
    wanted: Any = retry_after({"retry-after": "Fri, 31 Dec 2399 23:59:59 GMT"})
    assert wanted > 3600


def test_an_api_error_can_be_made_by_hand() -> None:
    error = APIError(404, "gone", "body")
    assert (error.status_code, error.detail, error.response_body, error.errors) == (404, "gone", "body", [])
