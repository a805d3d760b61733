"""A dialogue without a socket: what a client can make it hold that asks much, or reads nothing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bakehouse.inferlets.dialogue import Desk, Dialogue, Who, dialogue, outgoing
from bakehouse.inferlets.dialogue.relay import Relays
from bakehouse.inferlets.host import InferletHost
from bakehouse.inferlets.mcp import ConfiguredMcp
from bakehouse.inferlets.processes import Processes
from tests.support.waiting import wait_until


class Talk:
    """A client that has opened a native program."""

    def __init__(self, desk: Desk) -> None:
        self.dialogue = Dialogue(desk, Who("ada", "ada"))
        self.process = ""
        self._answers: dict[int, dict[str, Any]] = {}
        self._count = 0

    async def open(self) -> None:
        self.process = (await self.answer(await self.ask("open")))["result"]["process"]

    async def ask(self, op: str, **fields: Any) -> int:
        self._count += 1
        await self.dialogue.feed(json.dumps({"id": self._count, "op": op, **fields}))
        return self._count

    async def call(self, interface: str, method: str, *arguments: Any) -> int:
        return await self.ask("call", interface=interface, method=method, arguments=arguments)

    async def answer(self, number: int) -> dict[str, Any]:
        """Read until it is there."""
        async with asyncio.timeout(20):
            while number not in self._answers:
                for frame in await self.dialogue.take():
                    found = json.loads(frame)
                    self._answers[found.get("id")] = found
        return self._answers[number]


@pytest.fixture
def desk(host: InferletHost) -> Desk:
    return Desk(Processes(host), host.programs, Relays(ConfiguredMcp()))


@pytest.fixture
async def talk(desk: Desk) -> AsyncIterator[Talk]:
    found = Talk(desk)
    await found.open()
    yield found
    await found.dialogue.close()


async def test_unanswered_requests_have_room(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = [(await talk.answer(await talk.call("client", "receive")))["result"]["value"] for _ in range(2)]
    monkeypatch.setattr(dialogue, "MOST_OPEN_BYTES", 50)
    first, second = [await talk.ask("take", wait=wait) for wait in waits]
    assert (await talk.answer(second))["error"]["code"] == "limit_exceeded"
    assert "result" in await talk.answer(await talk.ask("signal", process=talk.process, text="one"))
    assert (await talk.answer(first))["result"]["value"] == "one"
    assert "result" in await talk.answer(await talk.ask("signal", process=talk.process, text="two"))
    again = await talk.ask("take", wait=waits[1])
    assert (await talk.answer(again))["result"]["value"] == "two"


async def test_calls_wait_for_a_client_that_reads_nothing(
    talk: Talk, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "MOST_LENGTH", 1)
    calls = [await talk.call("client", "send", text) for text in ("one", "two", "three")]
    sent = desk.processes.find(talk.process, "ada")
    await asyncio.to_thread(wait_until, lambda: sent.bytes, "the first message", 20)
    for _ in range(100):  # whatever could go on does
        await asyncio.to_thread(lambda: None)
    assert sent.bytes == len("one")
    assert [(await talk.answer(number))["result"] for number in calls] == [{"value": None}] * 3
