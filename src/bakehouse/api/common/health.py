"""What load balancers and Prometheus ask."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from bakehouse.api.common.envelope import JsonReply
from bakehouse.api.common.openapi import document
from bakehouse.api.common.services import services_of
from bakehouse.core.errors import Unavailable

router = APIRouter(tags=["operations"])
_STATUS = {
    "application/json": {
        "schema": {"type": "object", "required": ["status"], "properties": {"status": {"type": "string"}}}
    }
}


@router.get("/health", **document("health", "Whether the process answers", content=_STATUS, public=True))
async def health() -> Response:
    return JsonReply(b'{"status":"ok"}')


@router.get("/ready", **document("ready", "Whether traffic may come", content=_STATUS, errors=(503,), public=True))
async def ready(request: Request) -> Response:
    reason = services_of(request).not_ready()
    if reason is not None:
        raise Unavailable(reason)
    return JsonReply(b'{"status":"ready"}')


@router.get(
    "/metrics",
    **document(
        "metrics",
        "Counters in Prometheus text form",
        content={"text/plain": {"schema": {"type": "string"}}},
        public=True,
    ),
)
async def metrics(request: Request) -> Response:
    return Response(services_of(request).metrics(), media_type=CONTENT_TYPE_LATEST)
