"""Who is asking: the key from ``Authorization: Bearer`` or, where headers cannot be set, from the query."""

from __future__ import annotations

from starlette.requests import Request

from bakehouse.api.common.services import services_of
from bakehouse.core.errors import Unauthorized
from bakehouse.core.identity import Caller

_MISSING = "send an API key as: Authorization: Bearer <key> (make one with: bakehouse keys create)"


async def caller(request: Request, *, query_token: bool = False) -> Caller:
    """The one who makes *request*. ``query_token`` also takes ``?access_token=``, for a browser's EventSource.

    Raises Unauthorized.
    """
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not text:
        text = request.query_params.get("access_token", "") if query_token else ""
    if not text:
        raise Unauthorized(_MISSING)
    return await services_of(request).keys.authenticate(text.strip())
