"""The client, other programs, tools, adapters: what a program may ask beside a model."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from inferlet import Adapter, Context, ForwardPass, Model, Sampler, mcp, messaging, runtime, session, zo
from inferlet.content import Content, part_of
from inferlet.errors import BadRequest, HostError, LimitExceeded, Locked, McpError, NameTaken, NotFound

from bakehouse import __version__
from bakehouse.inferlets.calls.native import NativeHost
from tests.inferlets.sdk.support import Open, Seen

GREEDY = Sampler.greedy()


# The client


def test_texts_and_files_go_both_ways_and_wait(host: NativeHost, seen: Seen) -> None:
    for text in ("one", "two"):
        host.guest.deliver(text)
    host.guest.deliver_file(bytes(range(256)))
    host.guest.deliver_file(b"")
    assert [session.receive(), session.receive()] == ["one", "two"]
    assert [session.receive_file(), session.receive_file()] == [bytes(range(256)), b""]
    session.send("ñ")
    session.send_file(b"\x00\xff")
    assert seen.messages == ["ñ"] and seen.files == [b"\x00\xff"]


def test_receive_waits_for_what_is_not_there_yet(host: NativeHost) -> None:
    timer = threading.Timer(0.05, host.guest.deliver, ("late",))
    timer.start()
    assert session.receive() == "late"
    timer.join()


def test_a_message_may_be_too_long(host: NativeHost) -> None:
    with pytest.raises(LimitExceeded, match="message"):
        session.send("x" * (int(runtime.limits()["message"]) + 1))


# The runtime


def test_who_forgot_to_await_is_told_so(host: NativeHost) -> None:
    async def text() -> str:
        return ""

    forgotten = text()
    with pytest.raises(BadRequest, match="text: must be text, not coroutine; await it"):
        session.send(forgotten)  # type: ignore[arg-type]
    forgotten.close()


def test_what_a_program_knows_of_its_place(host: NativeHost) -> None:
    assert runtime.version() == __version__ and runtime.models() == ["dummy"]
    assert runtime.username() == "ada" and runtime.instance_id() == host.guest.launch.id
    assert runtime.limits()["contexts"] == 256


def test_what_cannot_be_spawned(host: NativeHost) -> None:
    with pytest.raises(NotFound, match=r"pkg@1\.0\.0 is not installed"):
        runtime.spawn("pkg@1.0.0", ["x"])
    with pytest.raises(TypeError, match=r"\['x'\]"):
        runtime.spawn("pkg@1.0.0", "x")


# Other programs


def test_a_queue_gives_each_message_to_one(host: NativeHost) -> None:
    for text in ("a", "b"):
        messaging.push("queue", text)
    assert [messaging.pull("queue"), messaging.pull("queue")] == ["a", "b"]


def test_a_subscription_has_no_end_of_its_own(host: NativeHost) -> None:
    messaging.broadcast("news", "nobody hears this")
    with messaging.subscribe("news") as news:
        for text in ("one", "two", "three"):
            messaging.broadcast("news", text)
        found = []
        for text in news:
            found.append(text)
            if len(found) == 2:
                break
        assert found == ["one", "two"] and news.next() == "three"
    assert list(news) == []
    with pytest.raises(RuntimeError, match="has ended"):
        news.next()
    news.unsubscribe()


def test_a_subscription_may_be_ended_by_another_thread(host: NativeHost) -> None:
    news = messaging.subscribe("news")
    heard: list[list[str]] = []
    listener = threading.Thread(target=lambda: heard.append(list(news)), daemon=True)
    listener.start()
    messaging.broadcast("news", "one")
    news.unsubscribe()
    listener.join(20)
    assert heard in ([["one"]], [[]])


def test_a_slow_subscriber_misses_messages(host: NativeHost) -> None:
    with messaging.subscribe("flood") as news:
        for number in range(70):
            messaging.broadcast("flood", str(number))
        assert [news.next() for _ in range(64)] == [str(number) for number in range(64)]
        messaging.broadcast("flood", "later")
        assert news.next() == "later"


def test_topics_are_of_one_owner(native: Open) -> None:
    with native(owner="ada"):
        messaging.push("private", "secret")
        with native(owner="bob"):
            messaging.push("private", "mine")
            assert messaging.pull("private") == "mine"
        assert messaging.pull("private") == "secret"


# Tools


def test_tools_resources_and_prompts(host: NativeHost) -> None:
    assert mcp.available_servers() == ["kitchen"]
    with mcp.connect("kitchen") as kitchen:
        assert [tool["name"] for tool in json.loads(kitchen.list_tools())["tools"]] == ["flour"]
        answer = kitchen.call_tool("flour", '{"loaves": 3}')
        assert answer == [Content.Text("1500 g")] and answer.text == "1500 g" and not answer.is_error
        failed = kitchen.call_tool("flour", '{"loaves": 21}')
        assert failed.is_error and "the oven holds 20" in failed.text
        assert "recipe://rye" in kitchen.list_resources()
        (recipe,) = kitchen.read_resource("recipe://rye")
        assert isinstance(recipe, Content.EmbeddedResource) and recipe.text == "sour dough, salt, patience"
        assert json.loads(kitchen.list_prompts())["prompts"][0]["name"] == "order"
        assert "Ada wants bread." in kitchen.get_prompt("order", '{"guest": "Ada"}')
        with pytest.raises(McpError):
            kitchen.get_prompt("nope")
        with pytest.raises(ValueError, match="of an object"):
            kitchen.call_tool("flour", "[]")
    with pytest.raises(NotFound):
        kitchen.list_tools()
    with pytest.raises((McpError, NotFound), match="cellar"):
        mcp.connect("cellar")


def test_parts_of_an_answer() -> None:
    assert part_of({"type": "image", "mimeType": "image/png", "data": "AAE="}) == Content.Image(
        "image/png", b"\x00\x01"
    )
    assert part_of({"type": "audio", "mimeType": "audio/wav", "data": "AA=="}) == Content.Audio("audio/wav", b"\x00")
    blob = {"uri": "a:b", "mimeType": "x/y", "blob": "AA=="}
    assert part_of({"type": "resource", "resource": blob}) == Content.EmbeddedResource("a:b", "x/y", None, b"\x00")
    assert part_of({"type": "resource_link", "uri": "a:b", "name": "n"}) == Content.EmbeddedResource("a:b")
    assert part_of({"type": "smell", "of": "bread"}) == Content.Text('{"type": "smell", "of": "bread"}')


# Adapters and training


def trained(model: Model, name: str) -> Adapter:
    adapter = Adapter.create(model, name)
    zo.initialize(adapter, 4, 8.0, 4, 0.5, 0.5)
    return adapter


def test_adapters_by_name(model: Model, tmp_path: Path) -> None:
    adapter = trained(model, "tuned")
    try:
        assert Adapter.lookup(model, "nothing") is None
        with pytest.raises(NameTaken):
            Adapter.create(model, "tuned")
        found = Adapter.lookup(model, "tuned")
        assert found is not None and found.name == "tuned" and repr(found) == "<Adapter 'tuned'>"
        adapter.clone("copy").remove()
        assert Adapter.lookup(model, "copy") is None
        adapter.save("first")
        adapter.load("first")
        assert any((tmp_path / "adapters").rglob("first*"))
        with pytest.raises(BadRequest):
            adapter.load("../outside")
        with pytest.raises(NotFound, match=r"^nothing/here/adapter_config\.json: no such file"):
            adapter.load("nothing/here")
    finally:
        adapter.remove()


def test_one_program_at_a_time_has_the_lock(native: Open) -> None:
    with native():
        adapter = trained(Model.load("dummy"), "shared")
        with native():
            other = Adapter.lookup(Model.load("dummy"), "shared")
            assert other is not None
            with other:
                assert other.acquire_lock() and other.acquire_lock()
                assert not adapter.acquire_lock()
                with pytest.raises(Locked):
                    zo.initialize(adapter, 4, 8.0, 4, 0.5, 0.5)
            assert adapter.acquire_lock()
            adapter.release_lock()
        adapter.remove()


def test_training_moves_the_mean(model: Model) -> None:
    adapter = trained(model, "zo")

    def output(seed: int) -> list[int]:
        context = Context(model, fill=range(20))
        stream = context.generate(
            GREEDY, max_tokens=16, auto_flush=False, adapter=adapter, zo_seed=seed, stop_tokens=[]
        )
        return stream.tokens()

    def row(seed: int) -> bytes:
        forward = ForwardPass(model).input_tokens([1, 2]).sampler([1], Sampler.embedding()).adapter(adapter)
        zo.adapter_seed(forward, seed)
        found = forward.execute().results[0]
        assert isinstance(found, bytes)
        return found

    try:
        mean = row(0)
        assert output(7) == output(7) and row(7) == row(7) != mean == row(0) and row(-7) != row(7)
        zo.update(adapter, [1.0, 2.0, 3.0, 4.0], [5, 6, 7, -(2**63)], 1.0)
        assert row(0) != mean
        with pytest.raises(BadRequest):
            zo.update(adapter, [1.0], [5])
    finally:
        adapter.remove()


def test_an_error_of_the_host_is_one_of_ours(host: NativeHost) -> None:
    with pytest.raises(BadRequest, match="topic") as caught:
        messaging.push("", "no topic")
    assert isinstance(caught.value, HostError) and caught.value.code == "bad_request"
