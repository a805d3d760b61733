"""Webhooks: a task's end is told to a URL, signed (https://www.standardwebhooks.com), retried, and never in the way.

A delivery is a row that was written with the task's last move, so that none is lost; the receiver may see one twice
and tells them apart by ``webhook-id``. The URL is a caller's: it must not reach into the operator's network, so a name
is resolved once and the connection goes to the address that was checked.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import random
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

import httpx
import structlog

from bakehouse.core.clock import SECOND, Clock
from bakehouse.core.errors import BakehouseError, Invalid, NotFound
from bakehouse.core.task import Task
from bakehouse.service.keyfile import ServerSecret
from bakehouse.store.base import Store, WebhookDelivery

MAX_TRIES = 8
FIRST_DELAY = 5.0
"""Seconds before the second try; each later one waits four times as long: the eighth is about eight hours later."""
TIMEOUT = 20.0
"""Seconds for a whole delivery. The store hides a delivery that was handed out for a minute: this must be less."""
PARALLEL = 32
MAX_URL = 2048

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""The addresses of a host name. Raises OSError."""

_NAT64 = ipaddress.ip_network("64:ff9b::/96")

log = structlog.get_logger("bakehouse.webhooks")


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """``allow_private`` lets webhooks reach addresses of the operator's own network; ``interval`` is seconds."""

    allow_private: bool = False
    interval: float = 1.0


class Refused(Exception):
    """The URL may not be called; trying again would not help."""


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of *host* as this machine sees them. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Webhooks:
    """See the module's text. ``render`` lays out a finished task as the body that is sent."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        secret: ServerSecret,
        render: Callable[[Task], bytes],
        settings: WebhookSettings,
        resolve: Resolve = resolve,
    ) -> None:
        self._store = store
        self._clock = clock
        self._key = secret.key("webhooks")
        self._render = render
        self._settings = settings
        self._resolve = resolve
        self._wake = asyncio.Event()

    # ---- secrets and signatures -------------------------------------------------------------------------------
    def secret(self, owner_id: str) -> str:
        """The secret that an owner's receivers verify signatures with, as ``whsec_...``."""
        return "whsec_" + base64.b64encode(self._owner_key(owner_id)).decode()

    def _owner_key(self, owner_id: str) -> bytes:
        return hmac.new(self._key, owner_id.encode(), hashlib.sha256).digest()

    def _headers(self, delivery: WebhookDelivery, body: bytes) -> dict[str, str]:
        moment = str(self._clock.now() // SECOND)
        signed = b".".join([delivery.id.encode(), moment.encode(), body])
        digest = hmac.new(self._owner_key(delivery.owner_id), signed, hashlib.sha256).digest()
        return {
            "content-type": "application/json",
            "user-agent": "bakehouse-webhooks/1",
            "webhook-id": delivery.id,
            "webhook-timestamp": moment,
            "webhook-signature": "v1," + base64.b64encode(digest).decode(),
        }

    # ---- addresses --------------------------------------------------------------------------------------------
    def check_url(self, url: str) -> None:
        """Raise Invalid for a URL that could never be called. Names are looked up only when it is."""
        try:
            host = _split(url).hostname or ""
            if not self._settings.allow_private and (host == "localhost" or _is_private_literal(host)):
                raise Refused("is an address of the server's own network")
        except Refused as error:
            raise Invalid.at("/webhook", str(error)) from None

    async def _address(self, host: str, port: int) -> str:
        addresses = await self._resolve(host, port)
        allowed = [a for a in addresses if self._settings.allow_private or not _is_private(a)]
        if not allowed:
            raise Refused(f"{host} has no address that webhooks may reach")
        return allowed[0]

    # ---- delivery ---------------------------------------------------------------------------------------------
    def wake(self) -> None:
        """A delivery may be due: look now."""
        self._wake.set()

    async def run(self) -> None:
        """Deliver what is due, for ever. Cancel it to stop: what is under way is tried again later."""
        async with _client() as client:
            running: set[asyncio.Task[None]] = set()
            try:
                while True:
                    self._wake.clear()
                    for delivery in await self._due(PARALLEL - len(running)):
                        task = asyncio.create_task(self._deliver(client, delivery))
                        running.add(task)
                        task.add_done_callback(running.discard)
                        task.add_done_callback(lambda _: self._wake.set())
                    await self._pause()
            finally:
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)

    async def deliver_due(self) -> int:
        """Make one try of each delivery that is due now, and return how many these were."""
        deliveries = await self._due(PARALLEL)
        async with _client() as client:
            await asyncio.gather(*(self._deliver(client, delivery) for delivery in deliveries))
        return len(deliveries)

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self._settings.interval):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _due(self, limit: int) -> list[WebhookDelivery]:
        if limit <= 0:
            return []
        try:
            return await self._store.due_webhooks(self._clock.now(), limit)
        except BakehouseError as error:
            log.warning("webhooks cannot be read", action="webhooks_unreadable", error=error.detail)
            return []

    async def _deliver(self, client: httpx.AsyncClient, delivery: WebhookDelivery) -> None:
        try:
            try:
                body = self._render(await self._store.get_task(delivery.task_id, delivery.owner_id))
            except NotFound:
                await self._store.webhook_done(delivery.id)  # the task was deleted: nothing is left to tell
                return
            problem, final = await self._attempt(client, delivery, body)
            await self._record(delivery, problem, final)
        except BakehouseError as error:
            # The store is away; the delivery shows up again when its minute has passed.
            log.warning("webhook not recorded", action="webhook_unrecorded", task=delivery.task_id, error=error.detail)

    async def _attempt(
        self, client: httpx.AsyncClient, delivery: WebhookDelivery, body: bytes
    ) -> tuple[str | None, bool]:
        """What went wrong (None: delivered) and whether that is final."""
        try:
            async with asyncio.timeout(TIMEOUT):
                status = await self._post(client, delivery, body)
        except Refused as error:
            return str(error), True
        except TimeoutError:
            return f"no answer within {TIMEOUT:g} s", False
        except (httpx.HTTPError, OSError) as error:
            return f"{type(error).__name__}: {error}"[:300], False
        if 200 <= status < 300:
            return None, True
        # 410 is how a receiver says, by the standard, that it wants no more of these.
        return f"it answered {status}", status == 410

    async def _post(self, client: httpx.AsyncClient, delivery: WebhookDelivery, body: bytes) -> int:
        parts = _split(delivery.url)
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        address = await self._address(host, port)
        literal = f"[{address}]" if ":" in address else address
        target = httpx.URL(parts._replace(netloc=f"{literal}:{port}", fragment="").geturl())
        headers = {**self._headers(delivery, body), "host": parts.netloc.rpartition("@")[2]}
        request = client.stream(
            # The certificate is checked against the name, though the connection goes to the checked address.
            "POST", target, content=body, headers=headers, timeout=TIMEOUT, extensions={"sni_hostname": host},
        )  # fmt: skip
        async with request as response:
            return response.status_code  # the answer's body is nobody's business and is not read

    async def _record(self, delivery: WebhookDelivery, problem: str | None, final: bool) -> None:
        if problem is None:
            await self._store.webhook_done(delivery.id)
            return
        tries = delivery.tries + 1
        final = final or tries >= MAX_TRIES
        next_at = 0 if final else self._clock.now() + int(delay(tries) * SECOND)
        log.info(
            "webhook failed",
            action="webhook_given_up" if final else "webhook_failed",
            task=delivery.task_id,
            tries=tries,
            error=problem,
        )
        await self._store.webhook_retry(delivery.id, next_at, problem)


def _client() -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=PARALLEL, max_keepalive_connections=0)
    # trust_env off: a proxy of the environment would connect to addresses that were never checked.
    return httpx.AsyncClient(trust_env=False, follow_redirects=False, limits=limits)


def delay(tries: int) -> float:
    """Seconds to wait after *tries* failed ones; a tenth more or less, so that many do not return at once."""
    return float(FIRST_DELAY * 4 ** (tries - 1) * random.uniform(0.9, 1.1))


def _split(url: str) -> SplitResult:
    if len(url) > MAX_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise Refused(f"must be a URL of at most {MAX_URL} plain characters")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Refused("is not a URL that can be read") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise Refused("must begin with http:// or https:// and name a host")
    if parts.username is not None or parts.password is not None:
        raise Refused("must not hold a user name or password")
    return parts


def _is_private_literal(host: str) -> bool:
    try:
        return _is_private(host)
    except ValueError:
        return False  # a name; what it stands for is looked up when it is called


def _is_private(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return _is_private(str(inner))
    return not ip.is_global or ip.is_multicast
