"""Client of the Bakehouse inference platform: run apps, follow their tasks, upload files.

The names of the app SDK (``BaseApp``, ``File`` and so on) are found here too; they are imported when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inferencesh._api import VERSION as __version__
from inferencesh._client import AsyncInference, Inference, async_inference, inference
from inferencesh._errors import (
    APIError,
    BadFile,
    BadRequest,
    Conflict,
    ConnectionFailed,
    Forbidden,
    Gone,
    InferenceError,
    MissingKey,
    NotConfigured,
    NotFound,
    RateLimited,
    Requirement,
    RequirementsNotMetError,
    ServerError,
    SetupAction,
    StreamInterrupted,
    TaskCancelled,
    TaskEnded,
    TaskFailed,
    TaskTimeout,
    TooLarge,
    Unauthorized,
    Unavailable,
    ValidationError,
)
from inferencesh._models import Page, Record, StreamingOptions, Task, UploadFileOptions
from inferencesh._sessions import AsyncSession, Session
from inferencesh._status import TaskStatus, is_terminal_status, parse_status
from inferencesh._streams import AsyncTaskStream, TaskStream

if TYPE_CHECKING:
    from infsh import (
        AudioMeta,
        BaseApp,
        BaseAppInput,
        BaseAppOutput,
        BaseAppSetup,
        File,
        ImageMeta,
        Metadata,
        OutputMeta,
        RawMeta,
        StorageDir,
        StreamDelta,
        TextMeta,
        VideoMeta,
        download,
        function,
    )

_APP_SDK = (
    "AudioMeta",
    "BaseApp",
    "BaseAppInput",
    "BaseAppOutput",
    "BaseAppSetup",
    "File",
    "ImageMeta",
    "Metadata",
    "OutputMeta",
    "RawMeta",
    "StorageDir",
    "StreamDelta",
    "TextMeta",
    "VideoMeta",
    "download",
    "function",
)

__all__ = [
    "APIError",
    "AsyncInference",
    "AsyncSession",
    "AsyncTaskStream",
    "AudioMeta",
    "BadFile",
    "BadRequest",
    "BaseApp",
    "BaseAppInput",
    "BaseAppOutput",
    "BaseAppSetup",
    "Conflict",
    "ConnectionFailed",
    "File",
    "Forbidden",
    "Gone",
    "ImageMeta",
    "Inference",
    "InferenceError",
    "Metadata",
    "MissingKey",
    "NotConfigured",
    "NotFound",
    "OutputMeta",
    "Page",
    "RateLimited",
    "RawMeta",
    "Record",
    "Requirement",
    "RequirementsNotMetError",
    "ServerError",
    "Session",
    "SetupAction",
    "StorageDir",
    "StreamDelta",
    "StreamInterrupted",
    "StreamingOptions",
    "Task",
    "TaskCancelled",
    "TaskEnded",
    "TaskFailed",
    "TaskStatus",
    "TaskStream",
    "TaskTimeout",
    "TextMeta",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "UploadFileOptions",
    "ValidationError",
    "VideoMeta",
    "__version__",
    "async_inference",
    "download",
    "function",
    "inference",
    "is_terminal_status",
    "parse_status",
]


def __getattr__(name: str) -> Any:
    if name in _APP_SDK:
        import infsh

        value = globals()[name] = getattr(infsh, name)
        return value
    raise AttributeError(f"module 'inferencesh' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
