"""A dialogue without a socket: what a client can make it hold that asks much, or reads nothing."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bakehouse.inferlets.calls.packing import pack_ids
from bakehouse.inferlets.dialogue import Desk, Dialogue, Who, dialogue, outgoing
from bakehouse.inferlets.dialogue.native import NativeCalls
from bakehouse.inferlets.dialogue.relay import Relays
from bakehouse.inferlets.errors import NoSuchProgram
from bakehouse.inferlets.host import InferletHost
from bakehouse.inferlets.mcp import ConfiguredMcp
from bakehouse.inferlets.processes import Processes
from tests.inferlets.host.support import Seen, launch, taken
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
        self.dialogue.feed(json.dumps({"id": self._count, "op": op, **fields}))
        return self._count

    async def call(self, interface: str, method: str, *arguments: Any) -> int:
        return await self.ask("call", interface=interface, method=method, arguments=arguments)

    async def answer(self, number: int) -> dict[str, Any]:
        """Read until it is there."""
        async with asyncio.timeout(20):
            while number not in self._answers:
                for frame in await taken(self.dialogue):
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


async def test_no_more_is_taken_of_a_process_than_is_sent_soon(talk: Talk, desk: Desk) -> None:
    """The rest waits with the process, where it is counted and where the client's next connection finds it."""
    process = desk.processes.find(talk.process, "ada")
    for _ in range(6):
        process.message("x" * (outgoing.TURN_LENGTH // 2))
    assert [len(await taken(talk.dialogue)) for _ in range(3)] == [2, 2, 2]


@pytest.mark.parametrize("attached", [True, False])
async def test_what_asks_a_client_s_servers_is_forgotten_at_its_end(talk: Talk, desk: Desk, attached: bool) -> None:
    await talk.answer(await talk.ask("register_mcp", name="tools"))
    process = (await talk.answer(await talk.ask("launch", program="spin", attach=attached)))["result"]["process"]
    if attached:
        await talk.answer(await talk.ask("detach", process=process))
    assert list(desk.relays._relays) == [process]
    await talk.answer(await talk.ask("terminate", process=process))
    await asyncio.to_thread(wait_until, lambda: not desk.relays._relays, "the entry to go", 20)
    for _ in range(20):
        await talk.answer(await talk.ask("launch", program="small", attach=False))
    await asyncio.to_thread(wait_until, lambda: not desk.relays._relays, "the entries to go", 20)
    with pytest.raises(NoSuchProgram):
        desk.processes.launch(launch("none"), None, talk.dialogue._relayed("x"))
    assert not desk.relays._relays


async def test_requests_that_have_not_begun_end_with_their_dialogue(talk: Talk) -> None:
    await talk.ask("remove", program="none@1.0.0")
    await talk.dialogue.close()
    await asyncio.sleep(0)
    assert talk.dialogue._open_bytes == 0
    gc.collect()  # a coroutine that nobody awaited says so when it is collected


async def test_a_generation_that_becomes_whole_while_it_is_taken_blocks_nobody(host: InferletHost) -> None:
    native = host.open_native(launch("native"), Seen())
    model = native.models.load("tiny")
    context = native.contexts.create(model, None)
    native.contexts.append(context, pack_ids([1, 2, 3]))
    generation = native.passes.generate(context, '{"max_tokens": 4000, "stop": {"tokens": []}}')
    gone = asyncio.Event()

    async def room() -> None:
        if not gone.is_set():
            gone.set()
            native.passes.whole(generation)

    calls = NativeCalls(native, room)
    taking = asyncio.ensure_future(calls.take(generation))
    async with asyncio.timeout(20):
        await gone.wait()
        await calls.call("models", "names", [])
    assert not taking.done()
    assert len(json.loads(await taking or "")["tokens"]) == 4000
    await calls.close()
