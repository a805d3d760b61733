"""The client, topics, children and MCP servers."""

from __future__ import annotations

import json
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any

import pytest

from bakehouse import __version__
from bakehouse.engine.errors import BadRequest, NotFound
from bakehouse.inferlets.calls.guest import Guest
from bakehouse.inferlets.errors import McpFailed, NoSuchProgram, Refused, SpawnFailed
from bakehouse.inferlets.messaging import BACKLOG
from tests.inferlets.calls.support import Aside, Here, Kept, Make, ready, taken

# The client


def test_messages_and_files_go_out(guest: Guest, kept: Kept) -> None:
    guest.calls.client.send("grüße")
    guest.calls.client.send_file("AP8=")
    assert (kept.messages, kept.files) == (["grüße"], [b"\x00\xff"])
    with pytest.raises(BadRequest, match="base64"):
        guest.calls.client.send_file("€")


def test_what_came_early_is_queued_in_order(guest: Guest) -> None:
    for text in ("one", "two"):
        guest.deliver(text)
    guest.deliver_file(b"\x00\xff")
    client = guest.calls.client
    assert [taken(guest, client.receive()) for _ in range(2)] == ["one", "two"]
    assert taken(guest, client.receive_file()) == "AP8="


def test_what_was_not_taken_is_the_next_again(guest: Guest) -> None:
    client, waits = guest.calls.client, guest.calls.waits
    first, second = client.receive(), client.receive()
    waits.drop(first)
    for text in ("one", "two"):
        guest.deliver(text)
    assert ready(guest, [second]) == [second]
    waits.drop(second)
    assert [taken(guest, client.receive()) for _ in range(2)] == ["one", "two"]


def test_a_queue_is_bounded_by_items_and_by_bytes(make: Make) -> None:
    guest = make(queue=3, message=100, file=1000, memory=1500)
    for _ in range(3):
        guest.deliver("x")
    with pytest.raises(Refused, match="queue: at most 3"):
        guest.deliver("x")
    guest.deliver_file(bytes(1000))
    with pytest.raises(Refused, match=r"memory: .* 1500 bytes"):
        guest.deliver_file(bytes(600))
    taken(guest, guest.calls.client.receive_file())
    guest.deliver_file(bytes(600))
    taken(guest, guest.calls.client.receive())
    guest.deliver("x")


def test_messages_and_files_have_a_size(make: Make) -> None:
    guest = make(message=10, file=10)
    for call in (guest.deliver, guest.calls.client.send, lambda text: guest.calls.messaging.push("topic", text)):
        call("x" * 10)
        for text in ("x" * 11, "€" * 4):
            with pytest.raises(Refused, match=r"message: .* 10 bytes"):
                call(text)
    for wrong in (lambda: guest.deliver_file(bytes(11)), lambda: guest.calls.client.send_file("A" * 15 + "=")):
        with pytest.raises(Refused, match=r"file: .* 10 bytes"):
            wrong()
    guest.calls.client.send_file("A" * 14 + "==")


# Itself


def test_what_an_instance_knows_of_itself(guest: Guest) -> None:
    runtime = guest.calls.runtime
    assert (runtime.version(), runtime.instance_id(), runtime.username()) == (__version__, guest.launch.id, "ada.l")
    assert json.loads(runtime.limits()) == asdict(guest.launch.limits)


# Children


def test_a_child_gives_its_result_or_its_error(guest: Guest, services: Here) -> None:
    waits = [guest.calls.runtime.spawn("pkg@1.0.0", json.dumps(["a", "b"])) for _ in range(2)]
    (parent, program, arguments, first), (*_, second) = services.spawned
    assert (parent, program, arguments) == (guest.launch, "pkg@1.0.0", ("a", "b"))
    first.set_result("42")
    second.set_exception(SpawnFailed("it fell"))
    assert taken(guest, waits[0]) == "42"
    with pytest.raises(SpawnFailed, match="it fell"):
        guest.calls.waits.take(waits[1])
    with pytest.raises(NoSuchProgram):
        guest.calls.runtime.spawn("nobody@1.0.0", "[]")
    with pytest.raises(BadRequest, match="arguments"):
        guest.calls.runtime.spawn("pkg@1.0.0", "[1]")


def test_children_are_bounded_and_end_with_their_wait_or_their_parent(make: Make, services: Here) -> None:
    guest = make(children=2)
    waits = [guest.calls.runtime.spawn("pkg@1.0.0", "[]") for _ in range(2)]
    with pytest.raises(Refused, match=r"children: .* 2"):
        guest.calls.runtime.spawn("pkg@1.0.0", "[]")
    guest.calls.waits.drop(waits[0])
    guest.calls.runtime.spawn("pkg@1.0.0", "[]")
    guest.close()
    assert [child.cancelled() for *_, child in services.spawned] == [True, True, True]


def test_children_of_children_are_bounded(make: Make) -> None:
    make(depth=7).calls.runtime.spawn("pkg@1.0.0", "[]")
    deep = make(depth=8)
    with pytest.raises(Refused, match=r"depth: .* 8"):
        deep.calls.runtime.spawn("pkg@1.0.0", "[]")


# Topics


def test_a_queue_gives_each_message_to_one(make: Make) -> None:
    first, second, stranger = make(), make(), make(owner="bob")
    first.calls.messaging.push("work", "one")
    waiting, foreign = second.calls.messaging.pull("work"), stranger.calls.messaging.pull("work")
    assert taken(second, waiting) == "one"
    blocked = Aside(lambda: taken(second, second.calls.messaging.pull("work")))
    first.calls.messaging.push("work", "two")
    assert blocked.result() == "two"
    assert ready(stranger, [foreign]) == []


def test_a_message_that_was_not_taken_is_not_lost(make: Make) -> None:
    first, second = make(), make()
    pulled = [first.calls.messaging.pull("work") for _ in range(3)]
    first.calls.waits.drop(pulled[0])
    for text in ("one", "two"):
        second.calls.messaging.push("work", text)
    assert ready(first, pulled[1:]) == pulled[1:]
    first.close()
    assert taken(second, second.calls.messaging.pull("work")) == "one"
    assert taken(second, second.calls.messaging.pull("work")) == "two"


def test_a_subscription_gets_what_is_broadcast_from_now_on(make: Make) -> None:
    first, second = make(), make()
    second.calls.messaging.broadcast("news", "before")
    feed = first.calls.messaging.subscribe("news")
    for text in ("one", "two", "three"):
        second.calls.messaging.broadcast("news", text)
    assert [taken(first, feed) for _ in range(3)] == ["one", "two", "three"]
    assert ready(first, [feed]) == []
    blocked = Aside(lambda: taken(first, feed))
    second.calls.messaging.broadcast("news", "four")
    assert blocked.result() == "four"
    first.calls.waits.drop(feed)
    second.calls.messaging.broadcast("news", "five")
    assert first.services.messaging.counts("ada").topics == 0  # type: ignore[attr-defined]


def test_a_slow_subscriber_misses_what_there_is_no_room_for(make: Make) -> None:
    first, second = make(memory=300), make()
    feed, small = (first.calls.messaging.subscribe(topic) for topic in ("news", "other"))
    for number in range(BACKLOG + 5):
        second.calls.messaging.broadcast("news", str(number))
    second.calls.messaging.broadcast("other", "x" * 200)  # 182 bytes of room are left
    assert first.services.messaging.counts("ada").missed == 6  # type: ignore[attr-defined]
    assert [taken(first, feed) for _ in range(BACKLOG)] == [str(number) for number in range(BACKLOG)]
    assert ready(first, [feed, small]) == []
    for topic, wait in (("news", feed), ("other", small)):
        second.calls.messaging.broadcast(topic, "y" * 200)
        assert taken(first, wait) == "y" * 200


@pytest.mark.parametrize("topic", ["", "x" * 2000])
def test_topics_have_a_name(guest: Guest, topic: str) -> None:
    for call in (guest.calls.messaging.pull, guest.calls.messaging.subscribe):
        with pytest.raises(BadRequest, match="topic"):
            call(topic)


# MCP


def test_a_session_with_a_server(guest: Guest) -> None:
    mcp = guest.calls.mcp
    assert json.loads(mcp.servers()) == ["kitchen"]
    session = int(taken(guest, mcp.connect("kitchen")))
    listed = json.loads(taken(guest, mcp.request(session, "tools/list", "{}")))
    assert {tool["name"] for tool in listed["tools"]}
    with pytest.raises(BadRequest, match="params"):
        mcp.request(session, "tools/list", "[]")
    mcp.close(session)
    with pytest.raises(NotFound, match="session"):
        mcp.request(session, "tools/list", "{}")
    with pytest.raises((McpFailed, NotFound)):
        taken(guest, mcp.connect("nowhere"))


def test_texts_and_masks_have_room_by_their_bytes(make: Make) -> None:
    guest = make(memory=1000, message=1000)
    guest.deliver("ü" * 400)
    for more in (lambda: guest.deliver("ü" * 200), lambda: guest.calls.grammars.create_mask("x" * 400)):
        with pytest.raises(Refused, match="memory: "):
            more()
    assert taken(guest, guest.calls.client.receive()) == "ü" * 400
    masks = [guest.calls.grammars.create_mask("x" * 400) for _ in range(2)]
    with pytest.raises(Refused, match="memory: "):
        guest.calls.grammars.create_mask("x" * 400)
    for mask in masks:
        guest.calls.grammars.release_mask(mask)
    guest.room.take(1000)  # for nothing is held


class Talkative:
    """A server that a client relays: it decides how much it answers, and when."""

    def __init__(self) -> None:
        self.asked: list[Future[Any]] = []

    def request(self, method: str, params: dict[str, Any]) -> Future[Any]:
        self.asked.append(Future())
        return self.asked[-1]

    def close(self) -> None:
        for each in self.asked:
            each.cancel()


def test_answers_that_nobody_takes_have_room_as_messages_have(make: Make) -> None:
    server, most = Talkative(), 1000
    guest = make(memory=most)
    session = guest.mcp.add(server)
    waits = [guest.calls.mcp.request(session, "tools/list", "{}") for _ in range(4)]
    text = "x" * (most // 2 - 2)
    for asked in server.asked[:3]:
        asked.set_result(text)
    with pytest.raises(Refused, match="memory: "):
        guest.calls.waits.take(waits[2])
    assert len(taken(guest, waits[0])) == most // 2
    guest.calls.waits.drop(waits[1])
    server.asked[3].set_result(text)
    assert len(taken(guest, waits[3])) == most // 2
    guest.calls.waits.drop(guest.calls.mcp.request(session, "tools/list", "{}"))
    assert server.asked[4].cancelled()
    guest.room.take(most)  # for nothing is held


def test_sessions_are_closed_with_the_instance(guest: Guest) -> None:
    mcp = guest.calls.mcp
    guest.calls.waits.drop(mcp.connect("kitchen"))
    taken(guest, mcp.connect("kitchen"))
    guest.close()
    assert len(guest.mcp) == 0
