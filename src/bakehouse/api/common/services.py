"""What the routes stand on, handed down by wiring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.requests import Request

if TYPE_CHECKING:
    from bakehouse.service.apps import Apps
    from bakehouse.service.files import Files
    from bakehouse.service.keys import Keys
    from bakehouse.service.secrets import Secrets
    from bakehouse.service.sessions import Sessions
    from bakehouse.service.streams import Streams
    from bakehouse.service.tasks import Tasks


@dataclass(frozen=True, slots=True)
class Services:
    """The use cases and what HTTP itself must know.

    ``webhook_secret`` tells the secret that the webhooks of an owner (its id) are signed with; ``not_ready`` says why
    no traffic should come (None: ready); ``metrics`` renders the Prometheus text; ``on_request`` is told route
    template, method, status and seconds of every answered request. ``max_body`` bounds JSON bodies, in bytes.
    ``access_log`` writes a line per request, not only per fault.
    """

    tasks: Tasks
    streams: Streams
    apps: Apps
    files: Files
    sessions: Sessions
    secrets: Secrets
    keys: Keys
    public_url: str
    webhook_secret: Callable[[str], str]
    max_body: int = 16 * 1024 * 1024
    allow_origins: tuple[str, ...] = ("*",)
    access_log: bool = False
    not_ready: Callable[[], str | None] = lambda: None
    metrics: Callable[[], bytes] = lambda: b""
    on_request: Callable[[str, str, int, float], None] | None = None


def services_of(request: Request) -> Services:
    """The services of the application that *request* reached."""
    services: Services = request.app.state.services
    return services
