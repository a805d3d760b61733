"""The WebSocket of `bakehouse serve`: interactive clients beside tasks, with the same keys and programs."""

from __future__ import annotations

import json

import pytest
from inferlet import client
from inferlet.client import ConnectionLost, Ended, Message, Process
from inferlet.errors import HostError, NotFound

from tests.inferlets.platform.conftest import kill_node
from tests.support.server import Server


def url_of(server: Server) -> str:
    return server.base_url.replace("http", "ws", 1)


def do(what: str, **values: object) -> list[str]:
    return [json.dumps({"do": what, **values})]


async def heard(process: Process) -> list[object]:
    return [event.text if isinstance(event, Message) else event async for event in process]


async def test_a_deployed_inferlet_is_launched_and_talked_to(server: Server) -> None:
    async with client.connect(url_of(server), token=server.key) as talk:
        assert "actor" in str(await talk.programs())
        process = await talk.launch("actor@1.0.0", do("echo"))
        for text in ("a", "b", "stop"):
            await process.signal(text)
        *said, end = await heard(process)
    assert said == ["heard a", "heard b"]
    assert isinstance(end, Ended)
    assert (end.result, end.error) == ("stopped", None)


async def test_a_client_comes_back_to_what_it_left(server: Server) -> None:
    async with client.connect(url_of(server), token=server.key) as talk:
        process = await talk.launch("actor@1.0.0", do("echo"))
        await process.signal("while away")
        name = process.id
    async with client.connect(url_of(server), token=server.key) as talk:
        again = await talk.attach(name, after=0)
        await again.signal("stop")
        *said, end = await heard(again)
    assert said == ["heard while away"]
    assert isinstance(end, Ended)


async def test_only_a_key_opens_it_and_owners_are_apart(server: Server) -> None:
    for token in (None, "inf_wrong"):
        with pytest.raises(HostError):
            async with client.connect(url_of(server), token=token) as talk:
                await talk.hello()
    async with client.connect(url_of(server), token=server.new_owner("stranger")) as talk:
        assert await talk.programs() == []
        with pytest.raises(NotFound):
            await talk.launch("actor@1.0.0", do("nothing"))


async def test_a_node_that_dies_ends_the_connection_and_the_next_one_works(server: Server) -> None:
    async with client.connect(url_of(server), token=server.key) as talk:
        process = await talk.launch("actor@1.0.0", do("echo"))
        kill_node(server)
        with pytest.raises(ConnectionLost):
            await heard(process)
    assert server.run("actor", {"do": "nothing"}, wait=60)["error"] is None
    async with client.connect(url_of(server), token=server.key) as talk:
        process = await talk.launch("actor@1.0.0", do("say", messages=["again"]))
        assert (await heard(process))[0] == "again"
