"""Files as the inference.sh clients read them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from bakehouse.api.common.body import MAX_INTEGER, Body, Part, Text
from bakehouse.core.clock import rfc3339
from bakehouse.core.file import FileRecord
from bakehouse.core.ids import short_id
from bakehouse.service.files import Files, FileSpec


class NewFile(Part):
    """A file that is about to be uploaded."""

    uri: Text | None = Field(None, description="Empty; the answer says it.")
    filename: Text | None = Field(None, max_length=1024)
    content_type: Text | None = Field(None, max_length=300)
    path: Text | None = Field(None, max_length=4096, description="Where the file lies at the caller's; only kept.")
    size: int | None = Field(None, ge=0, le=MAX_INTEGER, description="Bytes; an upload of another size is refused.")
    public: bool | None = None

    def spec(self, category: str | None) -> FileSpec:
        """As the service understands it."""
        return FileSpec(self.filename, self.content_type, self.size, bool(self.public), self.path, category)


class NewFiles(Body):
    """Files to upload, one entry each."""

    files: list[NewFile] = Field(min_length=1, max_length=1000)
    category: Text | None = Field(None, max_length=64)


class FileShape(BaseModel):
    """A file; ``uri`` is permanent and needs no key, ``upload_url`` is there until the bytes are."""

    id: str
    short_id: str
    created_at: str
    updated_at: str
    team_id: str
    visibility: str
    uri: str
    upload_url: str | None = None
    filename: str
    content_type: str
    size: int | None
    path: str
    remote_path: str
    category: str
    rating: int
    metadata: dict[str, Any]
    stored: bool = Field(description="Whether the bytes have arrived.")


def file_shape(files: Files, record: FileRecord) -> dict[str, Any]:
    """*record* with its URLs."""
    shape: dict[str, Any] = {
        "id": record.id,
        "short_id": short_id(record.id),
        "created_at": rfc3339(record.created_at),
        "updated_at": rfc3339(record.created_at),
        "team_id": record.owner_id,
        "visibility": "public" if record.public else "private",
        "uri": files.url(record),
        "filename": record.filename,
        "content_type": record.content_type,
        "size": record.size,
        "path": record.path or "",
        "remote_path": "",
        "category": record.category,
        "rating": 0,
        "metadata": {},
        "stored": record.blob_key is not None,
    }
    if record.blob_key is None:
        shape["upload_url"] = files.upload_url(record)
    return shape
