"""What published clients offer and this server does not have yet: refused by name, to callers with a key."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from bakehouse.api.common.auth import caller
from bakehouse.core.errors import NotConfigured

NAMESPACES = (
    "agents", "agent-runs", "interrupts", "chats", "tools", "flows", "flowruns", "teams", "engines", "knowledge",
    "skills", "artifacts", "credentials", "integrations", "search", "suggest", "projects", "mcps", "mcp-servers",
    "store", "sockets",
)  # fmt: skip
_METHODS = ["GET", "POST", "PUT", "DELETE"]

router = APIRouter()
actions = APIRouter()
"""The same for single actions, which must be matched before paths with a name in the same place."""

_ACTIONS = (
    *(f"/apps/{{app_id}}/{action}" for action in ("duplicate", "transfer", "status", "license")),
    "/tasks/featured", "/tasks/{task_id}/featured", "/tasks/{task_id}/visibility", "/tasks/{task_id}/telemetry",
    "/secrets/reveal/{key}",
)  # fmt: skip


async def refuse(request: Request) -> Response:
    """401 without a key, else 501 that names the part."""
    await caller(request, query_token=request.url.path.endswith("/stream"))
    path = request.url.path
    part = path if path.startswith(("/apps/", "/tasks/", "/secrets/")) else "/" + path.split("/")[1]
    raise NotConfigured(
        f"{part} is not part of this server: it runs apps (POST /apps/run), keeps their files, sessions and secrets"
    )


for _name in NAMESPACES:
    router.add_api_route(f"/{_name}", refuse, methods=_METHODS, include_in_schema=False)
    router.add_api_route(f"/{_name}/{{rest:path}}", refuse, methods=_METHODS, include_in_schema=False)
for _path in _ACTIONS:
    actions.add_api_route(_path, refuse, methods=["GET", "POST"], include_in_schema=False)
