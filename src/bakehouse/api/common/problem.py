"""Errors as RFC 9457 problem documents, in one body that every published client can read.

The body repeats the code and the text as ``error: {code, message}``, because older clients look only there.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from bakehouse.core.errors import BakehouseError, Invalid, NotFound, TooLarge, TooMany, Unauthorized, Unavailable

_JSON_ONLY = ("/agents", "/chats", "/tools")
"""Below these the published asynchronous client reads an error only from ``application/json``."""

_ROUTER_CODES = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}


class BadRange(BakehouseError):
    """A range that lies outside a file of ``size`` bytes."""

    status = 416
    code = "range_not_satisfiable"

    def __init__(self, size: int) -> None:
        super().__init__(f"the file has {size} bytes")
        self.size = size


def pointer(location: tuple[int | str, ...] | list[int | str]) -> str:
    """*location* as a JSON pointer (RFC 6901), such as ``/filters/0/field``."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in location)


def invalid_from_pydantic(errors: Any, prefix: tuple[int | str, ...] = ()) -> Invalid:
    """pydantic's list of errors as one Invalid; *prefix* stands before every path."""
    fields: list[dict[str, Any]] = []
    for error in errors:
        entry = {"path": pointer([*prefix, *error["loc"]]), "message": str(error["msg"])}
        if entry not in fields:
            fields.append(entry)
    first = fields[0] if fields else {"path": "", "message": "the request is not valid"}
    more = f" (and {len(fields) - 1} more)" if len(fields) > 1 else ""
    return Invalid(f"{first['path'] or '/'}: {first['message']}{more}", fields=fields)


def problem_body(error: BakehouseError, base: str, request_id: str | None = None) -> dict[str, Any]:
    """The problem document of *error*; *base* is the public URL that the type's URI begins with."""
    body: dict[str, Any] = {
        "type": f"{base}/errors/{error.code}",
        "title": _title(error.status),
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "success": False,
        "error": {"code": error.code, "message": error.detail},
    }
    if error.fields:
        body["errors"] = error.fields
    if request_id:
        body["request_id"] = request_id
    return body


def problem(scope: Scope, error: BakehouseError) -> Response:
    """The response for *error*, laid out for the route that *scope* asks for."""
    path = str(scope.get("path", ""))
    state = getattr(scope.get("app"), "state", None)
    body = problem_body(error, getattr(state, "public_url", ""), scope.get("state", {}).get("request_id"))
    # A published client reads a stream's error line by line as events; several lines of JSON are no event, so that
    # it goes on to ask for the task and finds the error there.
    option = orjson.OPT_INDENT_2 if path.endswith("/stream") else 0
    media = "application/json" if path.startswith(_JSON_ONLY) else "application/problem+json"
    return Response(orjson.dumps(body, option=option), error.status, _headers(error), media)


def install(app: FastAPI) -> None:
    """Make *app* answer errors of ours, of the router and of FastAPI's own validation as problem documents."""

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, BakehouseError)
        return problem(request.scope, error)

    async def routed(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        response = problem(request.scope, _from_http(error, request))
        if error.headers and "allow" in {name.lower() for name in error.headers}:
            response.headers["allow"] = {k.lower(): v for k, v in error.headers.items()}["allow"]
        return response

    async def validated(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        # The first part of FastAPI's locations says query, path or header; to a caller the name is enough.
        errors = [{"loc": tuple(e["loc"])[1:], "msg": e["msg"]} for e in error.errors()]
        return problem(request.scope, invalid_from_pydantic(errors))

    app.add_exception_handler(BakehouseError, ours)
    app.add_exception_handler(HTTPException, routed)
    app.add_exception_handler(RequestValidationError, validated)


def internal(request_id: str) -> BakehouseError:
    """What a caller may know of a fault of ours: the id to look for in the server's log."""
    return BakehouseError(f"the server failed to answer; its log tells more under request {request_id}")


def _from_http(error: HTTPException, request: Request) -> BakehouseError:
    if error.status_code == 404:
        return NotFound(f"there is no {request.method} {request.url.path} here")
    detail = f"{request.url.path} does not answer {request.method}" if error.status_code == 405 else str(error.detail)
    result = BakehouseError(detail, code=_ROUTER_CODES.get(error.status_code, "invalid_request"))
    result.status = error.status_code
    return result


def _headers(error: BakehouseError) -> dict[str, str]:
    if isinstance(error, BadRange):
        return {"content-range": f"bytes */{error.size}"}
    if isinstance(error, TooMany | Unavailable):
        return {"retry-after": str(error.retry_after)}
    if isinstance(error, Unauthorized):
        return {"www-authenticate": 'Bearer realm="bakehouse"'}
    if isinstance(error, TooLarge):
        # The rest of the body is not read, so the connection cannot carry another request.
        return {"connection": "close"}
    return {}


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
