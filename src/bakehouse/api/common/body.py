"""Request bodies: known keys are checked, unknown ones are accepted with a warning."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from starlette.requests import Request

from bakehouse.api.common.envelope import Message, warning
from bakehouse.api.common.problem import invalid_from_pydantic
from bakehouse.core.errors import BakehouseError, Invalid


def _no_nul(value: str) -> str:
    # PostgreSQL cannot keep it in a text, and no name or URL has one.
    if "\x00" in value:
        raise ValueError("must not hold the character NUL")
    return value


Text = Annotated[str, AfterValidator(_no_nul)]
"""A string that any database can keep."""

MAX_INTEGER = 2**63 - 1
"""The largest integer that any database can keep."""


class Body(BaseModel):
    """Base of request bodies: nothing is coerced, keys that are not declared are kept for the warning."""

    model_config = ConfigDict(extra="allow", strict=True)


class Part(BaseModel):
    """Base of objects inside a body: nothing is coerced, unknown keys are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True)


M = TypeVar("M", bound=Body)


class MalformedRequest(Invalid):
    """The body cannot be read at all."""

    code = "invalid_request"


async def read_json(request: Request) -> dict[str, Any]:
    """The body as an object; an empty body or ``null`` is ``{}``. Raises Invalid ``invalid_request``."""
    raw = await request.body()
    if not raw:
        return {}
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise MalformedRequest(f"the body is not JSON: {error}") from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise MalformedRequest("the body must be a JSON object")
    return value


def check_body(value: dict[str, Any], model: type[M]) -> tuple[M, list[Message]]:
    """*value* as *model*, with a warning for every top-level key that the model does not know. Raises Invalid."""
    try:
        body = model.model_validate(value)
    except ValidationError as error:
        raise invalid_from_pydantic(error.errors(include_url=False, include_context=False)) from error
    extra = body.model_extra
    if not extra:
        return body, []
    return body, [
        warning("unknown_field", f"the field {name!r} is not known here and was ignored", field=name) for name in extra
    ]


async def read_body(request: Request, model: type[M]) -> tuple[M, list[Message]]:
    """Read and check the body of *request*; see ``read_json`` and ``check_body``."""
    return check_body(await read_json(request), model)


def refuse(path: str, what: str) -> BakehouseError:
    """The error for a known field that this server cannot honour."""
    return Invalid.at(path, f"{what} is not offered by this server")
