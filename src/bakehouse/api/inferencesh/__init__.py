"""The dialect of the inference.sh clients: routes, shapes, translation."""

from __future__ import annotations

from fastapi import APIRouter


def routers() -> list[APIRouter]:
    """Every router of the dialect, in the order in which they must be matched."""
    from bakehouse.api.inferencesh import missing

    return [missing.router]
