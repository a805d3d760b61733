"""The HTTP application: the outermost layer, the manners, the dialects."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, FastAPI

from bakehouse.api.common import health, openapi, problem
from bakehouse.api.common.middleware import Edge, direct
from bakehouse.api.common.services import Services
from bakehouse.api.inferencesh import hot_routes, routers

__all__ = ["Services", "create_app"]


def create_app(services: Services, extra: Sequence[APIRouter] = ()) -> FastAPI:
    """The application over *services*. Routes of *extra* are matched before the dialects' own."""
    app = FastAPI(
        title="Bakehouse",
        version="0.1.0",
        description="Run apps as durable, streaming tasks.",
        docs_url="/docs",
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.services = services
    app.state.public_url = services.public_url.rstrip("/")
    problem.install(app)
    openapi.install(app)
    for router in (*extra, *routers(), health.router):
        app.include_router(router)
    app.add_middleware(
        Edge,
        max_body=services.max_body,
        allow_origins=services.allow_origins,
        streamed=("/files/upload/",),
        access_log=services.access_log,
        on_request=services.on_request,
        hot={(method, path): direct(app, path, endpoint) for method, path, endpoint in hot_routes()},
    )
    return app
