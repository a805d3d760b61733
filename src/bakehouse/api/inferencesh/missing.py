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
apps = APIRouter()
"""The same for actions on apps, which must be matched before ``/apps/{namespace}/{name}``."""

_APP_ACTIONS = ("duplicate", "transfer", "status", "license")


async def refuse(request: Request) -> Response:
    """401 without a key, else 501 that names the part."""
    await caller(request, query_token=request.url.path.endswith("/stream"))
    parts = request.url.path.strip("/").split("/")
    part = f"the action {parts[-1]!r} of apps" if parts[0] == "apps" else f"/{parts[0]}"
    raise NotConfigured(
        f"{part} is not part of this server: it runs apps (POST /apps/run), keeps their files, sessions and secrets"
    )


for _name in NAMESPACES:
    router.add_api_route(f"/{_name}", refuse, methods=_METHODS, include_in_schema=False)
    router.add_api_route(f"/{_name}/{{rest:path}}", refuse, methods=_METHODS, include_in_schema=False)
for _name in _APP_ACTIONS:
    apps.add_api_route(f"/apps/{{app_id}}/{_name}", refuse, methods=["GET", "POST"], include_in_schema=False)
