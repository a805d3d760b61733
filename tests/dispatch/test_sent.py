"""What a call sends its caller: durable, in order, shown once."""

from __future__ import annotations

from typing import Any

from bakehouse.core.executor import Finished, Logged, Lost, Sent
from bakehouse.service.streams import Update
from tests.dispatch.support import Server


def sent(updates: list[Update]) -> list[Any]:
    return [message for update in updates if update.sent for message in update.sent["messages"]]


async def test_messages_are_events_before_the_end(server: Server) -> None:
    task = await server.queue()
    await server.until(lambda: server.executor.calls)
    server.executor.tell(task.id, Sent(["a", {"uri": "b"}]))
    server.executor.tell(task.id, Logged("stdout", ["a line"]))
    server.executor.tell(task.id, Sent(["c"]))
    server.executor.end(task.id, Finished({}))
    row = await server.ended(task.id)
    assert sent(await server.story(row)) == ["a", {"uri": "b"}, "c"]
    kinds = [event.kind for event in await server.store.events(task.id)]
    assert kinds[-1] == "status" and {"log", "sent"} <= set(kinds)


async def test_a_reader_gets_each_once_whatever_it_has_seen(server: Server) -> None:
    task = await server.queue()
    await server.until(lambda: server.executor.calls)
    for number in range(30):
        server.executor.tell(task.id, Sent([f"{number} " + "x" * 3000]))
    await server.until(lambda: len(sent(list(server.live.feeds[task.id].kept))) == 30)
    feed = server.live.feeds[task.id]
    firsts = [update.sent["first"] for update in feed.kept if update.sent]
    counts = [len(update.sent["messages"]) for update in feed.kept if update.sent]
    assert firsts == [sum(counts[:index]) for index in range(len(counts))]
    middle = next(update.seq for update in feed.kept if update.sent and update.sent["first"] > 10)
    server.executor.end(task.id, Finished({}))
    row = await server.ended(task.id)
    rest = sent(await server.story(row, after=middle))
    assert [text.split()[0] for text in rest] == [str(number) for number in range(30 - len(rest), 30)]


async def test_an_attempt_that_was_lost_sends_from_its_beginning(server: Server) -> None:
    task = await server.queue()
    for word in ("first", "second"):
        await server.until(lambda: server.executor.calls)
        server.executor.tell(task.id, Sent([word]))
        server.executor.end(task.id, Lost("gone") if word == "first" else Finished({}))
    row = await server.ended(task.id)
    story = [update for update in await server.story(row) if update.sent]
    assert [(update.attempt, update.sent) for update in story] == [
        (1, {"first": 0, "messages": ["first"]}),
        (2, {"first": 0, "messages": ["second"]}),
    ]
