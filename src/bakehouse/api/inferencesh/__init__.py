"""The dialect of the inference.sh clients: routes, shapes, translation."""

from __future__ import annotations

from fastapi import APIRouter


def routers() -> list[APIRouter]:
    """Every router of the dialect, in the order in which they must be matched."""
    from bakehouse.api.inferencesh import account, apps, files, missing, sessions, tasks

    # Tasks first: their routes are asked most often, and routes are tried in order.
    return [tasks.router, files.router, missing.apps, apps.router, sessions.router, account.router, missing.router]
