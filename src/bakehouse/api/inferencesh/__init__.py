"""The dialect of the inference.sh clients: routes, shapes, translation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response


def routers() -> list[APIRouter]:
    """Every router of the dialect, in the order in which they must be matched."""
    from bakehouse.api.inferencesh import account, apps, files, missing, sessions, tasks

    return [missing.actions, tasks.router, files.router, apps.router, sessions.router, account.router, missing.router]


def hot_routes() -> list[tuple[str, str, Callable[[Request], Awaitable[Response]]]]:
    """Method, path and endpoint of the routes on the path of every short task."""
    from bakehouse.api.inferencesh import tasks

    return [("POST", "/apps/run", tasks.run)]
