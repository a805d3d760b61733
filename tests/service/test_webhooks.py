"""Webhooks against a real receiver: signatures, retries, and addresses that must not be reached."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest

from bakehouse.core.errors import Invalid
from bakehouse.core.task import Event, Task, TaskStatus, TaskWrite
from bakehouse.service.webhooks import MAX_TRIES, Webhooks, WebhookSettings, delay, resolve
from tests.support.platform import Platform


@dataclass
class Received:
    """One request as it arrived."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """A server that answers with the given statuses in turn, the last one for ever."""

    statuses: list[int]
    port: int = 0
    seen: asyncio.Queue[Received] = field(default_factory=asyncio.Queue)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {k.lower(): v for k, _, v in (text.partition(": ") for text in lines if text)}
        body = await reader.readexactly(int(headers["content-length"]))
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        writer.write(f"HTTP/1.1 {status} X\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()
        self.seen.put_nowait(Received(line, headers, body))

    async def next(self) -> Received:
        return await asyncio.wait_for(self.seen.get(), 20)


@asynccontextmanager
async def receiving(*statuses: int) -> AsyncIterator[Receiver]:
    receiver = Receiver(list(statuses))
    server = await asyncio.start_server(receiver.handle, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    async with server:
        yield receiver


def webhooks(
    here: Platform, allow: bool = True, look_up: Callable[[str, int], Awaitable[list[str]]] = resolve
) -> Webhooks:
    settings = WebhookSettings(allow_private=allow, interval=0.01)
    return Webhooks(
        here.store, here.clock, here.secret, lambda task: f'{{"id":"{task.id}"}}'.encode(), settings, look_up
    )


async def finish(here: Platform, url: str, code: str = "pass") -> Task:
    """A build task that ended and asked for a webhook."""
    await here.deploy(await here.caller(), "name: echo", code)
    (task,) = await here.store.claim([here.builds[-1].id], "holder")
    event = Event(task.last_seq + 1, here.clock.now(), "status", TaskStatus.COMPLETED, task.attempt)
    write = TaskWrite(task.id, task.attempt, (event,), status=TaskStatus.COMPLETED, output="null", deliver=url)
    assert await here.store.write(write)
    return task


async def later(here: Platform, hooks: Webhooks) -> int:
    """How many deliveries are tried once every wait is over."""
    here.clock.moved += 100_000
    return await hooks.deliver_due()


async def test_a_signed_delivery(here: Platform) -> None:
    hooks = webhooks(here)
    async with receiving(200) as receiver:
        task = await finish(here, f"http://127.0.0.1:{receiver.port}/hook?x=1")
        assert await hooks.deliver_due() == 1
        got = await receiver.next()
    assert got.line == "POST /hook?x=1 HTTP/1.1"
    assert got.body == f'{{"id":"{task.id}"}}'.encode()
    assert got.headers["host"] == f"127.0.0.1:{receiver.port}"
    secret = hooks.secret(task.owner_id)
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{got.headers['webhook-id']}.{got.headers['webhook-timestamp']}.".encode() + got.body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert got.headers["webhook-signature"] == f"v1,{expected}"
    assert hooks.secret("own_other") != secret
    assert await later(here, hooks) == 0


async def test_the_loop_delivers_by_itself(here: Platform) -> None:
    async with receiving(200) as receiver:
        running = asyncio.create_task(webhooks(here).run())
        await finish(here, f"http://127.0.0.1:{receiver.port}/")
        await receiver.next()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def test_failures_are_tried_again_with_the_same_id(here: Platform) -> None:
    hooks = webhooks(here)
    async with receiving(500, 302, 200) as receiver:
        await finish(here, f"http://127.0.0.1:{receiver.port}/")
        assert await hooks.deliver_due() == 1
        assert await hooks.deliver_due() == 0, "not before its wait is over"
        assert [await later(here, hooks) for _ in range(3)] == [1, 1, 0]
        assert len({(await receiver.next()).headers["webhook-id"] for _ in range(3)}) == 1


@pytest.mark.parametrize(("status", "tries"), [(410, 1), (503, MAX_TRIES)])
async def test_giving_up(here: Platform, status: int, tries: int) -> None:
    hooks = webhooks(here)
    async with receiving(status) as receiver:
        await finish(here, f"http://127.0.0.1:{receiver.port}/")
        assert [await later(here, hooks) for _ in range(tries + 1)] == [1] * tries + [0]
        assert receiver.seen.qsize() == tries


async def test_a_receiver_that_is_not_there(here: Platform) -> None:
    hooks = webhooks(here)
    async with receiving(200) as receiver:
        url = f"http://127.0.0.1:{receiver.port}/"
    await finish(here, url)
    assert [await later(here, hooks), await later(here, hooks)] == [1, 1]


async def test_nothing_is_told_of_a_deleted_task(here: Platform) -> None:
    async with receiving(200) as receiver:
        task = await finish(here, f"http://127.0.0.1:{receiver.port}/")
        await here.store.delete_task(task.id, task.owner_id)
        await webhooks(here).deliver_due()
        assert await later(here, webhooks(here)) == 0
        assert receiver.seen.empty()


async def test_a_name_is_resolved_once_and_checked(here: Platform) -> None:
    asked: list[str] = []

    async def look_up(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    async with receiving(200) as receiver:
        url = f"http://hooks.test:{receiver.port}/"
        await finish(here, url)
        strict = webhooks(here, allow=False, look_up=look_up)
        assert await strict.deliver_due() == 1
        assert (asked, receiver.seen.empty()) == (["hooks.test"], True)
        assert await later(here, strict) == 0, "an address that is refused is not tried again"
        await finish(here, url, "x = 1")
        assert await webhooks(here, look_up=look_up).deliver_due() == 1
        assert (await receiver.next()).headers["host"] == f"hooks.test:{receiver.port}"
        assert asked == ["hooks.test"] * 2


PRIVATE = [
    "http://127.0.0.1/", "http://localhost/", "http://10.1.2.3/", "http://192.168.1.1/", "http://172.16.0.1/",
    "http://169.254.169.254/latest", "http://[::1]/", "http://[fe80::1]/", "http://[fd00::1]/", "http://0.0.0.0/",
    "http://[::ffff:127.0.0.1]/", "http://[64:ff9b::7f00:1]/", "http://[2002:7f00:1::]/", "http://100.64.0.1/",
    "http://224.0.0.1/",
]  # fmt: skip


@pytest.mark.parametrize("url", PRIVATE)
def test_private_addresses_are_refused_unless_allowed(here: Platform, url: str) -> None:
    with pytest.raises(Invalid) as caught:
        webhooks(here, allow=False).check_url(url)
    assert caught.value.fields[0]["path"] == "/webhook"
    webhooks(here, allow=True).check_url(url)


@pytest.mark.parametrize("url", ["http://2130706433/", "http://0x7f.1/", "http://127.1/"])
async def test_odd_spellings_are_refused_when_they_are_called(here: Platform, url: str) -> None:
    hooks = webhooks(here, allow=False)
    await finish(here, url)
    assert [await hooks.deliver_due(), await later(here, hooks)] == [1, 0]


@pytest.mark.parametrize(
    "url",
    ["", "x", "ftp://a.test/", "http://", "http://a.test:99999/", "http://u:p@a.test/", "http://a b/", "http://[::1/",
     "http://a.test/\n", "http://" + "a" * 3000, "http://a.test:0/"],
)  # fmt: skip
def test_urls_that_are_none(here: Platform, url: str) -> None:
    with pytest.raises(Invalid):
        webhooks(here).check_url(url)


@pytest.mark.parametrize("url", ["http://example.com/x?y=1", "https://1.1.1.1:8443/", "http://[2606:4700::1111]/"])
def test_public_urls_are_accepted(here: Platform, url: str) -> None:
    webhooks(here, allow=False).check_url(url)


def test_waits_grow_to_hours() -> None:
    waits = [delay(tries) for tries in range(1, MAX_TRIES)]
    assert waits == sorted(waits)
    assert waits[0] < 6
    assert 5 * 3600 < waits[-1] < 7 * 3600
