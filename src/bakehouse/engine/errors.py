"""Every error the engine answers with, in one tree. Standard library only.

EngineError
├── BadRequest         a value cannot be accepted; ``field`` names it
├── NotFound           no model, context, adapter or matcher of that name or id for this owner
├── NameTaken          a live thing has this name
├── Locked             another program has the lock of what was to be changed
├── LimitExceeded      over a limit of this session or this engine
├── OutOfPages         the KV pool cannot hold this, even with everything else put aside
├── DeadlineExceeded   its time was over before its result was there
├── Cancelled          its caller gave it up
├── ModelRefused       a model cannot be loaded; the text names the file or the architecture
├── StepFailed         the runner raised; the step's requests fail, the engine goes on
└── EngineLost         the engine's process died or its socket closed; the request may be made again
"""

from __future__ import annotations


class EngineError(Exception):
    """Root of the tree. ``code`` is stable for programs, the text is for people and says the way out."""

    code = "engine_error"

    def __init__(self, detail: str, *, field: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field


class BadRequest(EngineError):
    code = "bad_request"

    @classmethod
    def at(cls, field: str, detail: str) -> BadRequest:
        return cls(f"{field}: {detail}", field=field)


class NotFound(EngineError):
    code = "not_found"


class NameTaken(EngineError):
    code = "name_taken"


class Locked(EngineError):
    code = "locked"


class LimitExceeded(EngineError):
    code = "limit_exceeded"


class OutOfPages(EngineError):
    code = "out_of_pages"


class DeadlineExceeded(EngineError):
    code = "deadline_exceeded"


class Cancelled(EngineError):
    code = "cancelled"


class ModelRefused(EngineError):
    code = "model_refused"


class StepFailed(EngineError):
    code = "step_failed"


class EngineLost(EngineError):
    code = "engine_lost"


#: What a code on the wire becomes on the other side.
BY_CODE: dict[str, type[EngineError]] = {
    cls.code: cls
    for cls in (
        BadRequest,
        NotFound,
        NameTaken,
        Locked,
        LimitExceeded,
        OutOfPages,
        DeadlineExceeded,
        Cancelled,
        ModelRefused,
        StepFailed,
        EngineLost,
    )
}
