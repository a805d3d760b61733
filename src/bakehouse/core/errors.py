"""Every error the platform answers with, in one tree.

    BakehouseError
    ├── Invalid             400  a value cannot be accepted; ``fields`` names each path
    ├── Unauthorized        401  no key, or one that is not known
    ├── Forbidden           403  the key lacks a scope
    ├── NotFound            404  not there, or not yours to see
    ├── Conflict            409  the state of the thing does not allow it
    ├── Gone                410  it was there and has ended
    ├── RequirementsNotMet  412  something must be set up first; ``fields`` says what and how
    ├── TooLarge            413  over a size limit
    ├── TooMany             429  a queue or a rate is full; ``retry_after`` seconds
    ├── NotConfigured       501  this server does not have the part that was asked for
    └── Unavailable         503  not now: starting, draining, or a dependency is away

The HTTP status stands here as a plain number, because it is the vocabulary that all dialects share;
how a body is laid out is a dialect's business.
"""

from __future__ import annotations

from typing import Any


class BakehouseError(Exception):
    """Root of the tree. ``code`` is stable for programs, ``detail`` is for people and says the way out."""

    status = 500
    code = "internal_error"

    def __init__(self, detail: str, *, code: str | None = None, fields: list[dict[str, Any]] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.fields = fields or []


class Invalid(BakehouseError):
    """A value cannot be accepted. ``fields``: ``[{"path": "/input/prompt", "message": "..."}]``."""

    status = 400
    code = "validation_error"

    @classmethod
    def at(cls, path: str, message: str) -> Invalid:
        """The error of one field; *path* is a JSON pointer such as ``/input/prompt``."""
        return cls(f"{path}: {message}", fields=[{"path": path, "message": message}])


class Unauthorized(BakehouseError):
    status = 401
    code = "unauthorized"


class Forbidden(BakehouseError):
    status = 403
    code = "insufficient_scope"


class NotFound(BakehouseError):
    status = 404
    code = "not_found"


class Conflict(BakehouseError):
    status = 409
    code = "conflict"


class Gone(BakehouseError):
    status = 410
    code = "gone"


class RequirementsNotMet(BakehouseError):
    status = 412
    code = "requirements_not_met"


class TooLarge(BakehouseError):
    status = 413
    code = "too_large"


class TooMany(BakehouseError):
    status = 429
    code = "rate_limited"

    def __init__(self, detail: str, *, retry_after: int = 1, code: str | None = None) -> None:
        super().__init__(detail, code=code)
        self.retry_after = retry_after


class NotConfigured(BakehouseError):
    status = 501
    code = "not_configured"


class Unavailable(BakehouseError):
    status = 503
    code = "unavailable"

    def __init__(self, detail: str, *, retry_after: int = 1) -> None:
        super().__init__(detail)
        self.retry_after = retry_after
