"""The Python client against a real server: every operation there and back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from inferlet.client import (
    Client,
    ConnectionLost,
    Ended,
    File,
    Gap,
    Message,
    ProgramFailed,
    Stderr,
    Stdout,
    Unauthorized,
    connect,
)
from inferlet.errors import BadRequest, HostError, LimitExceeded, NotFound

from tests.inferlets.client.support import PieServer, manifest
from tests.support.server import free_port


async def test_a_client_is_told_who_it_is(client: Client) -> None:
    told = await client.hello()
    assert told["protocol"] == 1
    assert told["owner"].startswith("owner_") and told["username"] == "local"
    assert set(told["scopes"]) == {"run", "deploy", "admin"}
    assert told["limits"]["message"] == 1 << 20
    await client.ping()


async def test_a_program_answers_and_returns(client: Client) -> None:
    process = await client.launch("tool@1.0.0", ["echo", "2"])
    await process.signal("one")
    await process.signal("zwei ✓")
    events = [event async for event in process]
    assert events == [Message("one", 1), Message("zwei ✓", 2), Ended("zwei ✓", None, 3)]
    assert process.seq == 3
    assert await process.result() == "zwei ✓"
    assert process.program == "tool@1.0.0"


@pytest.mark.parametrize("ref", ["tool", "tool@1.0.0", "local:tool@1.0.0"])
async def test_programs_are_named_with_and_without_version_and_owner(client: Client, ref: str) -> None:
    assert await (await client.launch(ref, ["say", "hi"])).result() == "hi"


async def test_what_a_program_prints_comes_by_stream(client: Client) -> None:
    process = await client.launch("tool", ["show"])
    events = [event async for event in process]
    assert {type(event): event.text for event in events[:-1]} == {Stdout: "to stdout\n", Stderr: "to stderr\n"}  # type: ignore[union-attr]


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (5 << 20) + 7])
async def test_files_go_both_ways(client: Client, size: int) -> None:
    data = bytes(range(251)) * (size // 251 + 1)
    process = await client.launch("tool", ["turn_file"])
    await process.send_file(data[:size])
    events = [event async for event in process]
    assert events[0] == File(data[:size][::-1], 1)
    assert events[1] == Ended(str(size), None, 2)


async def test_messages_between_the_chunks_of_a_file_stay_whole(client: Client) -> None:
    talking = await client.launch("tool", ["echo", "20"])
    turning = await client.launch("tool", ["turn_file"])
    data = b"abc" * (3 << 20)
    await asyncio.gather(turning.send_file(data), *(talking.signal(str(number)) for number in range(20)))
    assert await turning.result() == str(len(data))
    assert len([event async for event in talking]) == 21


async def test_an_exception_of_the_program_is_its_end(client: Client) -> None:
    process = await client.launch("tool", ["fail"])
    with pytest.raises(ProgramFailed, match="ValueError: as it was told"):
        await process.result()
    *_, last = [event async for event in process]
    assert isinstance(last, Ended)
    assert last.error is not None


async def test_a_limit_that_is_hit_is_named(client: Client) -> None:
    process = await client.launch("tool", ["spin"], limits={"cpu": 0.2})
    with pytest.raises(ProgramFailed) as failed:
        await process.result()
    assert failed.value.limit == "cpu"
    assert failed.value.code == "limit_exceeded"


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"queue": 0.5}, "queue is a whole number"),
        ({"cpu": 1e6}, "limits: cpu may be"),
        ({"cpu": 0}, "limits: cpu may be"),
        ({"speed": 1}, "limits: speed is none"),
    ],
)
async def test_limits_can_only_be_tighter(client: Client, limits: dict[str, float], text: str) -> None:
    with pytest.raises(BadRequest, match=text):
        await client.launch("tool", ["say", "x"], limits=limits)


@pytest.mark.parametrize("verb", ["wait", "spin"])
async def test_terminate_ends_it(client: Client, verb: str) -> None:
    process = await client.launch("tool", [verb])
    await process.terminate()
    with pytest.raises(ProgramFailed) as failed:
        await process.result()
    assert failed.value.code == "cancelled"
    await client.terminate(process.id)  # again, when it has ended: nothing happens


async def test_the_longest_result_comes_whole_and_a_longer_one_is_an_error(client: Client) -> None:
    most = 1 << 20
    # Each of these has six characters in JSON.
    process = await client.launch("tool", ["long", str(most), "\x01"])
    assert await process.result() == "\x01" * most
    with pytest.raises(ProgramFailed) as failed:
        await (await client.launch("tool", ["long", str(most + 1), "x"])).result()
    assert failed.value.code == "limit_exceeded"


async def test_what_no_frame_can_hold_is_refused_here(client: Client) -> None:
    process = await client.launch("tool", ["wait"])
    with pytest.raises(LimitExceeded, match="a frame has at most"):
        await process.signal("x" * (17 << 20))
    await process.terminate()


async def test_early_messages_wait_for_the_program(client: Client) -> None:
    process = await client.launch("tool", ["echo", "50"])
    for number in range(50):
        await process.signal(str(number))
    assert [event.text async for event in process if isinstance(event, Message)] == [str(n) for n in range(50)]


async def test_a_message_that_is_too_long_is_refused_and_harms_nothing(client: Client) -> None:
    process = await client.launch("tool", ["echo", "1"])
    with pytest.raises(LimitExceeded, match="message"):
        await process.signal("x" * ((1 << 20) + 1))
    await process.signal("short")
    assert await process.result() == "short"


async def test_a_file_that_is_too_long_is_refused_and_harms_nothing(client: Client) -> None:
    process = await client.launch("tool", ["turn_file"])
    with pytest.raises(HostError, match="at most") as refused:
        await process.send_file(bytes((64 << 20) + 1))
    assert refused.value.code == "too_large"
    await process.send_file(b"ab")
    assert await process.next_event() == File(b"ba", 1)


async def test_a_full_queue_is_said(client: Client) -> None:
    process = await client.launch("tool", ["spin"], limits={"queue": 3})
    for _ in range(3):
        await process.signal("x")
    with pytest.raises(LimitExceeded, match="queue"):
        await process.signal("x")
    await process.terminate()


async def test_unknown_things_are_not_found(client: Client) -> None:
    with pytest.raises(NotFound, match="nothing@1"):
        await client.launch("nothing@1.0.0")
    with pytest.raises(NotFound):
        await client.attach("not-there")
    with pytest.raises(NotFound):
        await client.terminate("not-there")
    process = await client.launch("tool", ["say", "x"])
    await process.result()
    with pytest.raises(NotFound):
        await process.signal("too late")


async def test_detach_and_attach_replay_what_was_missed(pie: PieServer, client: Client) -> None:
    process = await client.launch("tool", ["talk_when_told", "5"])
    await process.signal("go")
    seen = [await process.next_event() for _ in range(2)]
    await process.detach()
    with pytest.raises(NotFound):
        await process.signal("not mine")
    async with connect(pie.address, token=pie.key) as other:
        again = await other.attach(process.id, after=process.seq)
        await again.signal("end")
        rest = [event async for event in again]
    texts = [event.text for event in [*seen, *rest] if isinstance(event, Message)]
    assert texts == ["0", "1", "2", "3", "4"]
    assert rest[-1] == Ended("told", None, 6)


async def test_one_client_at_a_time(pie: PieServer, client: Client) -> None:
    process = await client.launch("tool", ["wait"])
    async with connect(pie.address, token=pie.key) as other:
        with pytest.raises(HostError, match="has its client already") as refused:
            await other.attach(process.id)
        assert refused.value.code == "attached"
        await other.terminate(process.id)  # its owner may, attached or not
    with pytest.raises(ProgramFailed):
        await process.result()


async def test_a_disconnect_leaves_the_process_running(pie: PieServer) -> None:
    async with connect(pie.address, token=pie.key) as first:
        process = await first.launch("tool", ["talk_when_told", "3"])
        await process.signal("go")
        assert await process.next_event() == Message("0", 1)
    with pytest.raises(ConnectionLost):
        await process.signal("gone")
    async with connect(pie.address, token=pie.key) as second:
        again = await attach_soon(second, process.id, after=1)
        await again.signal("end")
        assert [event.seq async for event in again] == [2, 3, 4]


async def test_an_ended_process_is_kept_for_its_result(pie: PieServer) -> None:
    async with connect(pie.address, token=pie.key) as first:
        process = await first.launch("tool", ["say", "kept"], attach=False)
    async with connect(pie.address, token=pie.key) as second:
        again = await second.attach(process.id)
        assert await again.result() == "kept"


async def test_more_than_is_kept_is_a_counted_gap(client: Client) -> None:
    process = await client.launch("tool", ["talk", "5000"], attach=False)
    await until_ended(client, process.id)
    events = [event async for event in await client.attach(process.id)]
    assert isinstance(events[0], Gap)
    assert events[0].missed + len(events) - 1 == 5001
    assert [event.seq for event in events[1:]] == list(range(events[0].missed + 1, 5002))


async def test_a_reader_that_does_not_read_makes_nobody_wait(pie: PieServer, client: Client) -> None:
    """The socket of a client that reads nothing fills up; the program ends all the same."""
    from inferlet.client._connection import address_of
    from websockets.asyncio.client import connect as plain

    headers = {"Authorization": f"Bearer {pie.key}"}
    async with plain(address_of(pie.address), additional_headers=headers, max_queue=1, close_timeout=0.1) as socket:
        await socket.send('{"id":1,"op":"launch","program":"tool","arguments":["talk","50000"]}')
        process = (await first_answer(socket))["process"]
        await until_ended(client, process)
        await client.ping()


async def first_answer(socket: Any) -> dict[str, Any]:
    import json

    return dict(json.loads(await socket.recv())["result"])


async def test_processes_and_programs_are_listed(client: Client, tool: bytes) -> None:
    process = await client.launch("tool", ["wait"])
    found = {each["process"]: each for each in await client.processes()}
    assert found[process.id]["state"] == "running"
    assert found[process.id]["attached"] is True
    assert found[process.id]["program"] == "tool@1.0.0"
    await process.terminate()
    assert await client.install(tool, manifest("other", "2.0.0")) == "other@2.0.0"
    assert "other@2.0.0" in [each["program"] for each in await client.programs()]
    with pytest.raises(HostError, match="installed with other content"):
        await client.install(tool, manifest("other", "2.0.0") + 'description = "changed"\n')
    await client.install(tool, manifest("other", "2.0.0") + 'description = "changed"\n', force=True)
    await client.remove("other@2.0.0")
    with pytest.raises(NotFound):
        await client.launch("other")


async def test_what_is_no_program_is_refused(client: Client) -> None:
    with pytest.raises(HostError) as refused:
        await client.install(b"\0asm nonsense", manifest("bad"))
    assert refused.value.code == "bad_program"
    with pytest.raises(HostError, match="package"):
        await client.install(b"x", "nothing = 1")


async def test_owners_do_not_see_each_other(pie: PieServer, client: Client, tool: bytes) -> None:
    process = await client.launch("tool", ["wait"])
    async with connect(pie.address, token=pie.new_owner("bob")) as bob:
        assert await bob.processes() == []
        assert await bob.programs() == []
        for ask in (bob.attach, bob.terminate):
            with pytest.raises(NotFound):
                await ask(process.id)
        with pytest.raises(NotFound):
            await bob.launch("tool")
        with pytest.raises(HostError, match="scope 'deploy'"):
            await bob.install(tool, manifest("tool"))
    await process.terminate()


@pytest.mark.parametrize("token", ["wrong", "inf_" + "x" * 43, None])
async def test_without_a_good_key_there_is_no_connection(pie: PieServer, token: str | None) -> None:
    with pytest.raises((Unauthorized, ConnectionLost)):
        async with connect(pie.address, token=token) as client:
            await client.ping()


async def test_nobody_there_is_said() -> None:
    with pytest.raises(ConnectionLost, match="cannot reach"):
        await connect(f"ws://127.0.0.1:{free_port()}")
    with pytest.raises(ValueError, match="address"):
        await connect("ftp://somewhere")


async def test_an_mcp_server_at_the_client(client: Client) -> None:
    asked = []

    async def shout(method: str, params: dict[str, Any]) -> Any:
        asked.append((method, params["name"]))
        return {"content": [{"type": "text", "text": params["arguments"]["text"].upper() + "!"}]}

    await client.serve_mcp("voice", shout)
    process = await client.launch("tool", ["ask", "voice", "hello"])
    assert await process.result() == "HELLO!"
    assert asked == [("tools/call", "shout")]


async def test_an_mcp_server_that_fails_is_an_error_in_the_program(client: Client) -> None:
    async def refuse(method: str, params: dict[str, Any]) -> Any:
        raise RuntimeError("no voice today")

    async def mumble(method: str, params: dict[str, Any]) -> Any:
        return {"content": object()}  # no JSON

    for handler, told in ((refuse, "no voice today"), (mumble, "not JSON serializable")):
        await client.serve_mcp("voice", handler)
        process = await client.launch("tool", ["ask", "voice", "hello"])
        with pytest.raises(ProgramFailed, match=told):
            await asyncio.wait_for(process.result(), 20)


async def test_an_mcp_server_goes_with_its_client(pie: PieServer, client: Client) -> None:
    never: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    called = asyncio.Event()

    async def hang(method: str, params: dict[str, Any]) -> Any:
        called.set()
        return await never

    async with connect(pie.address, token=pie.key) as first:
        await first.serve_mcp("voice", hang)
        process = await first.launch("tool", ["ask", "voice", "hello"])
        await called.wait()
    again = await attach_soon(client, process.id)
    with pytest.raises(ProgramFailed, match="gone"):
        await again.result()


async def attach_soon(client: Client, process: str, after: int | None = None) -> Any:
    """Attach when the server has noticed that the last client is gone."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await client.attach(process, after=after)
            except HostError as error:
                if error.code != "attached":
                    raise
            await asyncio.sleep(0.02)


async def until_ended(client: Client, process: str) -> None:
    async with asyncio.timeout(60):
        while True:
            states = {each["process"]: each["state"] for each in await client.processes()}
            if states[process] == "ended":
                return
            await asyncio.sleep(0.05)
