"""What the OpenAPI document says of a route whose handler reads and answers by itself."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

_TEMPLATE = "#/components/schemas/{model}"
_models: set[type[BaseModel]] = set()

_ERRORS = {
    400: "A value cannot be accepted",
    401: "No key, or one that is not known",
    403: "The key lacks a scope",
    404: "Not there, or not yours to see",
    409: "The state of the thing does not allow it",
    410: "It was there and has ended",
    412: "Something must be set up first",
    413: "Over a size limit",
    416: "The range lies outside the file",
    429: "A queue or a rate is full",
    501: "This server does not have the part that was asked for",
    503: "Not now",
}


class Problem(BaseModel):
    """RFC 9457 problem document."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    success: bool
    error: dict[str, str]
    errors: list[dict[str, Any]] | None = None
    request_id: str | None = None


class MessageItem(BaseModel):
    """A remark beside the answer, such as a warning about an unknown field."""

    level: str
    code: str
    message: str
    meta: dict[str, Any] | None = None


_models.update({Problem, MessageItem})


def reference(model: type[BaseModel]) -> dict[str, Any]:
    """A reference to *model* among the document's components."""
    _models.add(model)
    return {"$ref": _TEMPLATE.format(model=model.__name__)}


def enveloped(data: dict[str, Any]) -> dict[str, Any]:
    """The schema of the envelope around *data* (a schema)."""
    return {
        "type": "object",
        "required": ["success", "status", "data", "messages"],
        "properties": {
            "success": {"const": True},
            "status": {"type": "integer"},
            "data": data,
            "messages": {"type": "array", "items": reference(MessageItem)},
        },
    }


def page_of(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of one page of *model*."""
    return {
        "type": "object",
        "required": ["items", "next_cursor", "prev_cursor", "has_next", "has_previous", "items_per_page"],
        "properties": {
            "items": {"type": "array", "items": reference(model)},
            "next_cursor": {"type": "string"},
            "prev_cursor": {"type": "string"},
            "has_next": {"type": "boolean"},
            "has_previous": {"type": "boolean"},
            "items_per_page": {"type": "integer"},
            "total_items": {"type": "integer"},
        },
    }


def array_of(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of a plain array of *model*."""
    return {"type": "array", "items": reference(model)}


def document(
    name: str,
    summary: str,
    *,
    data: dict[str, Any] | type[BaseModel] | None = None,
    body: type[BaseModel] | None = None,
    body_required: bool = False,
    content: dict[str, Any] | None = None,
    errors: tuple[int, ...] = (),
    status: int = 200,
    empty: dict[int, str] | None = None,
    public: bool = False,
    parameters: list[dict[str, Any]] | None = None,
    request: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Keyword arguments for a route decorator. ``name`` is the operation id.

    ``data`` is what the envelope holds; ``content`` replaces the answer's content where it is no envelope;
    ``request`` replaces the request body where it is no JSON object; ``empty`` names further answers without a body;
    ``public`` needs no key.
    """
    schema = reference(data) if isinstance(data, type) else (data or {})
    answer = content if content is not None else {"application/json": {"schema": enveloped(schema)}}
    extra: dict[str, Any] = {"security": []} if public else {}
    if body is not None:
        extra["requestBody"] = {
            "required": body_required,
            "content": {"application/json": {"schema": reference(body)}},
        }
    if request is not None:
        extra["requestBody"] = request
    if parameters:
        extra["parameters"] = parameters
    codes = sorted({*errors, *(() if public else (401,)), *((400, 413) if body is not None else ())})
    return {
        "operation_id": name,
        "summary": summary,
        "status_code": status,
        "response_model": None,
        "responses": {
            status: {"description": "Done", "content": answer},
            **{code: {"description": text} for code, text in (empty or {}).items()},
            **{code: _problem(code) for code in codes},
        },
        "openapi_extra": extra or None,
    }


def header(name: str, description: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    """A documented request header."""
    return _parameter("header", name, description, schema)


def query(name: str, description: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    """A documented query parameter that the handler reads by itself."""
    return _parameter("query", name, description, schema)


def _parameter(where: str, name: str, description: str, schema: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "name": name,
        "in": where,
        "required": False,
        "description": description,
        "schema": schema or {"type": "string"},
    }


def _problem(code: int) -> dict[str, Any]:
    return {
        "description": _ERRORS[code],
        "content": {"application/problem+json": {"schema": reference(Problem)}},
    }


def install(app: FastAPI) -> None:
    """Make ``app.openapi()`` hold the schemas of the documented models and the security scheme."""

    def build() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _build(app)
        return app.openapi_schema

    app.openapi = build  # type: ignore[method-assign]


def _build(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(
        title=app.title, version=app.version, description=app.description, routes=app.routes, tags=app.openapi_tags
    )
    models = sorted(_models, key=lambda model: model.__name__)
    _, definitions = models_json_schema([(model, "validation") for model in models], ref_template=_TEMPLATE)
    components = schema.setdefault("components", {})
    components.setdefault("schemas", {}).update(definitions.get("$defs", {}))
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": "An API key"}}
    schema["security"] = [{"key": []}]
    _drop_default_validation(schema)
    return schema


def _drop_default_validation(schema: dict[str, Any]) -> None:
    # FastAPI writes a 422 for every route with parameters; ours are answered with 400 problem documents.
    for path in schema.get("paths", {}).values():
        for operation in path.values():
            default = operation.get("responses", {})
            if default.pop("422", None) is not None:
                default.setdefault("400", _problem(400))
    for name in ("HTTPValidationError", "ValidationError"):
        schema["components"]["schemas"].pop(name, None)
