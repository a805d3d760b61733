"""Every error of this package, in one tree.

InferenceError
├── MissingKey (ValueError)         no API key was given
├── BadFile (ValueError)            something to upload cannot be read as a file
├── ConnectionFailed                the server could not be reached, or the connection broke
├── StreamInterrupted               a stream broke more often than its options allow
├── TaskTimeout (TimeoutError)      the task did not end in the time given to wait
├── TaskEnded (RuntimeError)
│   ├── TaskFailed                  the task failed
│   └── TaskCancelled               the task was cancelled
└── APIError                        the server answered with an error
    ├── BadRequest             400
    │   └── ValidationError    400  the input does not fit; ``errors`` names each path
    ├── Unauthorized           401
    ├── Forbidden              403
    ├── NotFound               404
    ├── Conflict               409
    ├── Gone                   410
    ├── RequirementsNotMetError 412 a secret or the like must be set up; ``errors`` says how
    ├── TooLarge               413
    ├── RateLimited            429  ``retry_after`` seconds
    └── ServerError            5xx
        ├── NotConfigured      501
        └── Unavailable        503  ``retry_after`` seconds
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class InferenceError(Exception):
    """Root of the tree."""


class MissingKey(InferenceError, ValueError):
    """No API key was given."""


class BadFile(InferenceError, ValueError):
    """Something to upload cannot be read as a file."""


class ConnectionFailed(InferenceError):
    """The server could not be reached, or the connection broke.

    ``unsent`` is True when the request surely never reached the server.
    """

    def __init__(self, message: str, *, unsent: bool = False) -> None:
        super().__init__(message)
        self.unsent = unsent


class StreamInterrupted(InferenceError):
    """A stream broke more often than its options allow. The task goes on; ``seq`` is the last update that was seen."""

    def __init__(self, task_id: str, seq: int, reason: str) -> None:
        super().__init__(
            f"the stream of task {task_id} broke too often ({reason}). The task itself goes on: follow it again with "
            f"client.stream_task({task_id!r}), or allow more with StreamingOptions(max_retries=...)"
        )
        self.task_id, self.seq = task_id, seq


class TaskTimeout(InferenceError, TimeoutError):
    """The task did not end in the time given to wait. It goes on: wait again, or cancel it."""

    def __init__(self, task_id: str, seconds: float) -> None:
        super().__init__(
            f"task {task_id} did not end within {seconds:g} s and goes on. Wait for it again with "
            f"client.wait_for_completion({task_id!r}), or stop it with client.cancel({task_id!r})"
        )
        self.task_id = task_id


class TaskEnded(InferenceError, RuntimeError):
    """A task ended without a result. ``task`` is the task as it stands."""

    def __init__(self, message: str, task: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.task = task

    @property
    def task_id(self) -> str:
        return str(self.task.get("id", ""))


class TaskFailed(TaskEnded):
    """The task failed. The message is the task's error; the traceback stands in ``task["logs"]``."""


class TaskCancelled(TaskEnded):
    """The task was cancelled."""


class APIError(InferenceError):
    """The server answered with an error.

    ``code`` is stable for programs, ``detail`` is for people, ``response_body`` is the answer as text, ``errors`` lists
    what the server said of single fields or requirements.
    """

    hint = ""

    def __init__(
        self,
        status_code: int,
        detail: str,
        response_body: str | None = None,
        *,
        code: str | None = None,
        errors: list[Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"HTTP {status_code}: {detail}" + (f" ({self.hint})" if self.hint else ""))
        self.status_code, self.detail, self.response_body = status_code, detail, response_body
        self.code = code
        self.errors: list[Any] = errors or []
        self.retry_after = retry_after

    @property
    def message(self) -> str:
        return self.detail


class BadRequest(APIError):
    """The server cannot accept a value of the request."""


class ValidationError(BadRequest):
    """The input does not fit. ``errors``: ``[{"path": "/input/prompt", "message": "..."}]``."""


class Unauthorized(APIError):
    """The key is missing or not known."""

    hint = "check INFERENCE_API_KEY or api_key=; a server's first start prints its key"


class Forbidden(APIError):
    """The key lacks a scope."""

    hint = "use a key with the scope that the message names"


class NotFound(APIError):
    """Not there, or not yours to see."""


class Conflict(APIError):
    """The state of the thing does not allow it."""


class Gone(APIError):
    """It was there and has ended."""


class TooLarge(APIError):
    """Over a size limit."""

    hint = "pass big data as files, which are uploaded beside the request"


class RateLimited(APIError):
    """A queue or a rate is full; ``retry_after`` seconds."""

    hint = "wait retry_after seconds and try again"


class ServerError(APIError):
    """The server failed."""


class NotConfigured(ServerError):
    """This server does not have the part that was asked for."""


class Unavailable(ServerError):
    """Not now: the server starts or stops; ``retry_after`` seconds."""

    hint = "try again in a moment"


@dataclass(frozen=True)
class SetupAction:
    """What repairs a missing requirement. ``type``: ``add_secret``, ``connect`` or ``add_scopes``."""

    type: str
    provider: str | None = None
    scopes: tuple[str, ...] = ()
    instructions: str | None = None


@dataclass(frozen=True)
class Requirement:
    """One thing that must be set up first. ``type``: ``secret``, ``credential`` or ``scope``."""

    type: str
    key: str
    message: str
    action: SetupAction | None = None


class RequirementsNotMetError(APIError):
    """Something must be set up before the app can run; ``errors`` is a list of ``Requirement``."""


_BY_STATUS: dict[int, type[APIError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    412: RequirementsNotMetError,
    413: TooLarge,
    422: ValidationError,
    429: RateLimited,
    501: NotConfigured,
    503: Unavailable,
}


def error_from(status: int, body: bytes, retry_after: float | None = None) -> APIError:
    """The error for an answer with *status* >= 400, whichever of the known layouts its body has."""
    text = body.decode("utf-8", "replace")
    document = _object(text)
    code = _code(document)
    kind = _BY_STATUS.get(status, ServerError if status >= 500 else APIError)
    errors = document.get("errors")
    found = list(errors) if isinstance(errors, list) else []
    if kind is BadRequest and (code == "validation_error" or found):
        kind = ValidationError
    if kind is RequirementsNotMetError:
        found = [_requirement(item) for item in found if isinstance(item, dict)]
    return kind(status, _detail(document, text), text, code=code, errors=found, retry_after=retry_after)


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _code(document: dict[str, Any]) -> str | None:
    inner = document.get("error")
    named = document.get("code") or (inner.get("code") if isinstance(inner, dict) else None)
    if named:
        return str(named)
    kind = str(document.get("type", ""))
    return kind.rsplit("/errors/", 1)[1] if "/errors/" in kind else None


def _detail(document: dict[str, Any], text: str) -> str:
    inner = document.get("error")
    message = inner.get("message") if isinstance(inner, dict) else inner
    found = document.get("detail") or document.get("title") or document.get("message") or message or text[:500]
    return str(found or "the server gave no reason")


def _requirement(item: dict[str, Any]) -> Requirement:
    action = item.get("action")
    return Requirement(
        type=str(item.get("type", "")),
        key=str(item.get("key", "")),
        message=str(item.get("message", "")),
        action=_action(action) if isinstance(action, dict) else None,
    )


def _action(item: dict[str, Any]) -> SetupAction:
    scopes = item.get("scopes")
    return SetupAction(
        type=str(item.get("type", "")),
        provider=item.get("provider"),
        scopes=tuple(map(str, scopes)) if isinstance(scopes, list) else (),
        instructions=item.get("instructions"),
    )
