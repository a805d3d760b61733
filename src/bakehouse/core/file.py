"""Files: what callers upload and what tasks leave behind. Records hold ids and keys, never URLs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FileRecord:
    """``capability`` is the unguessable part of the file's permanent URI; ``blob_key`` is None until bytes arrived.

    ``category`` is ``upload``, ``package`` or ``output``; sizes are bytes; times are microseconds UTC.
    """

    id: str
    owner_id: str
    capability: str
    filename: str
    content_type: str
    size: int | None
    public: bool
    category: str
    created_at: int
    upload_expires_at: int | None = None
    blob_key: str | None = None
    sha256: str | None = None
    path: str | None = None


@dataclass(frozen=True, slots=True)
class TaskFile:
    """That a task read (``role`` input) or wrote (``role`` output) a file."""

    task_id: str
    file_id: str
    role: str
    created_at: int
