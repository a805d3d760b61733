"""Files: announce, upload, fetch, list, delete."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from bakehouse.api.common.auth import caller
from bakehouse.api.common.body import read_body
from bakehouse.api.common.download import Download, serve
from bakehouse.api.common.envelope import reply
from bakehouse.api.common.lists import ListBody, page_data, read_list
from bakehouse.api.common.openapi import array_of, document, header, page_of, query
from bakehouse.api.common.services import services_of
from bakehouse.api.inferencesh.shapes_files import FileShape, NewFiles, file_shape
from bakehouse.core.errors import Forbidden

router = APIRouter(tags=["files"])
_BYTES = {"*/*": {"schema": {"type": "string", "format": "binary"}}}


@router.post(
    "/files",
    **document(
        "createFiles", "Announce files; each answer says where to PUT the bytes", data=array_of(FileShape),
        body=NewFiles, body_required=True, errors=(403,),
    ),
)  # fmt: skip
async def create(request: Request) -> Response:
    who = await caller(request)
    body, messages = await read_body(request, NewFiles)
    files = services_of(request).files
    records = [await files.create(who, entry.spec(body.category)) for entry in body.files]
    return reply(request, [file_shape(files, record) for record in records], messages=messages)


@router.put(
    "/files/upload/{file_id}",
    **document(
        "uploadFile", "The bytes of a file, at the URL that announcing it gave", data=FileShape, public=True,
        errors=(400, 403, 404, 409, 413), request={"required": True, "content": _BYTES},
        parameters=[
            query("expires", "From the upload URL", {"type": "integer", "minimum": 0}),
            query("signature", "From the upload URL"),
        ],
    ),
)  # fmt: skip
async def upload(request: Request, file_id: str) -> Response:
    files = services_of(request).files
    expires = request.query_params.get("expires", "")
    if not (expires.isascii() and expires.isdigit() and len(expires) < 15):
        raise Forbidden("this upload URL is not whole; use it as POST /files gave it", code="forbidden")
    record = await files.receive(file_id, int(expires), request.query_params.get("signature", ""), request.stream())
    return reply(request, file_shape(files, record))


_FETCH = document(
    "fetchFile", "The bytes of a file, by its URI", content=_BYTES, public=True, errors=(404, 416),
    parameters=[header("range", "bytes=FIRST-LAST")],
)  # fmt: skip


@router.get("/files/c/{capability}/{filename}", **_FETCH)
@router.head("/files/c/{capability}/{filename}", include_in_schema=False)
@router.get("/files/c/{capability}", include_in_schema=False)
@router.head("/files/c/{capability}", include_in_schema=False)
async def fetch(request: Request, capability: str, filename: str = "") -> Response:
    del filename  # it is in the URI for people and for tools that save under the last part
    files = services_of(request).files
    record = await files.by_capability(capability)
    file = Download(record.filename, record.content_type, record.size or 0, record.sha256 or record.id, record.public)
    return serve(request, file, lambda start, length: files.content(record, start, length))


@router.post("/files/list", **document("listFiles", "Your files, newest first", data=page_of(FileShape), body=ListBody))
async def list_files(request: Request) -> Response:
    who = await caller(request)
    wanted, messages = await read_list(request)
    files = services_of(request).files
    page = await files.list_files(who, wanted)
    return reply(request, page_data(page, lambda r: file_shape(files, r), wanted.limit), messages=messages)


@router.get("/files/{file_id}", **document("getFile", "One file's record", data=FileShape, errors=(404,)))
async def get(request: Request, file_id: str) -> Response:
    files = services_of(request).files
    return reply(request, file_shape(files, await files.get(await caller(request), file_id)))


@router.delete(
    "/files/{file_id}",
    **document("deleteFile", "Delete a file; its URI is dead at once", data={"type": "object"}, errors=(403, 404)),
)
async def delete(request: Request, file_id: str) -> Response:
    record = await services_of(request).files.delete(await caller(request), file_id)
    return reply(request, {"id": record.id, "deleted": True})
