"""The WebSocket of interactive clients: who they are, and frames to and fro. What frames mean is not known here."""

from bakehouse.api.inferlets.base import WIRE, Inferlets, Link
from bakehouse.api.inferlets.route import PATH, bearer, router

__all__ = ["PATH", "WIRE", "Inferlets", "Link", "bearer", "router"]
