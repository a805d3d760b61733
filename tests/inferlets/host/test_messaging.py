"""Topics: each message to one puller, broadcasts to those who listen, and limits; beside a model of a few lines."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, Future

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bakehouse.engine.errors import BadRequest
from bakehouse.inferlets.base import OwnerLimits
from bakehouse.inferlets.errors import Refused
from bakehouse.inferlets.messaging import BACKLOG, MAX_SUBSCRIBERS, MAX_TOPIC, Counts, LocalMessaging


@pytest.fixture
def messaging() -> LocalMessaging:
    return LocalMessaging()


def taken(future: Future[str]) -> str:
    return future.result(0)


def test_messages_and_pullers_are_first_in_first_out(messaging: LocalMessaging) -> None:
    waiting = [messaging.pull("ada", "t") for _ in range(2)]
    for text in "abcd":
        messaging.push("ada", "t", text)
    assert [taken(each) for each in waiting] == ["a", "b"]
    assert [taken(messaging.pull("ada", "t")) for _ in range(2)] == ["c", "d"]
    assert messaging.counts("ada") == Counts()


def test_owners_share_nothing(messaging: LocalMessaging) -> None:
    messaging.push("ada", "t", "hers")
    theirs = messaging.pull("bob", "t")
    assert not theirs.done()
    assert taken(messaging.pull("ada", "t")) == "hers"
    theirs.cancel()
    assert messaging.counts("bob") == Counts()


def test_one_that_gives_up_loses_its_place_only(messaging: LocalMessaging) -> None:
    first, second = messaging.pull("ada", "t"), messaging.pull("ada", "t")
    assert first.cancel()
    messaging.push("ada", "t", "a")
    assert taken(second) == "a"
    with pytest.raises(CancelledError):
        first.result(0)


def test_a_message_that_was_not_taken_goes_back_to_the_head(messaging: LocalMessaging) -> None:
    dead = [messaging.pull("ada", "t") for _ in range(3)]
    for text in "abcd":
        messaging.push("ada", "t", text)
    assert taken(dead[1]) == "b"
    # In another order than they came, beside one that was taken.
    assert dead[2].cancel() and dead[0].cancel() and not dead[1].cancel()
    assert dead[0].cancelled() and dead[0].cancel()
    with pytest.raises(CancelledError):
        dead[0].result(0)
    assert [taken(messaging.pull("ada", "t")) for _ in range(3)] == ["a", "c", "d"]
    assert taken(dead[1]) == "b"


def test_a_message_that_comes_back_goes_to_who_waits(messaging: LocalMessaging) -> None:
    dead = messaging.pull("ada", "t")
    messaging.push("ada", "t", "a")
    heir = messaging.pull("ada", "t")
    assert dead.cancel()
    assert taken(heir) == "a"


def test_a_broadcast_is_for_those_of_now(messaging: LocalMessaging) -> None:
    first: list[str] = []
    second: list[str] = []
    messaging.broadcast("ada", "t", "nobody")
    end_first = messaging.subscribe("ada", "t", first.append)
    messaging.broadcast("ada", "t", "one")
    end_second = messaging.subscribe("ada", "t", second.append)
    messaging.broadcast("ada", "t", "both")
    end_first()
    end_first()
    messaging.broadcast("ada", "t", "other")
    messaging.broadcast("bob", "t", "elsewhere")
    assert (first, second) == (["one", "both"], ["both", "other"])
    end_second()
    assert messaging.counts("ada") == Counts()


def test_broadcasts_and_queues_are_apart(messaging: LocalMessaging) -> None:
    heard: list[str] = []
    end = messaging.subscribe("ada", "t", heard.append)
    waiting = messaging.pull("ada", "t")
    messaging.broadcast("ada", "t", "loud")
    assert not waiting.done()
    messaging.push("ada", "t", "quiet")
    assert (heard, taken(waiting)) == (["loud"], "quiet")
    end()


def test_a_subscriber_that_is_busy_misses_what_is_too_much(messaging: LocalMessaging) -> None:
    heard: list[str] = []
    inside, go_on = threading.Event(), threading.Event()

    def slow(text: str) -> None:
        heard.append(text)
        inside.set()
        go_on.wait(10)

    end = messaging.subscribe("ada", "t", slow)
    thread = threading.Thread(target=messaging.broadcast, args=("ada", "t", "first"))
    thread.start()
    assert inside.wait(10)
    for number in range(BACKLOG + 3):
        messaging.broadcast("ada", "t", str(number))
    assert messaging.counts("ada").missed == 3
    go_on.set()
    thread.join()
    assert heard == ["first", *map(str, range(BACKLOG))]
    end()


def test_a_subscriber_without_room_misses_what_comes(messaging: LocalMessaging) -> None:
    heard: list[str] = []

    def full(text: str) -> bool:
        if len(heard) < 2:
            heard.append(text)
            return True
        return False

    ends = [messaging.subscribe("ada", "t", call) for call in (full, lambda text: None)]
    for number in range(5):
        messaging.broadcast("ada", "t", str(number))
    assert (heard, messaging.counts("ada").missed) == (["0", "1"], 3)
    for end in ends:
        end()


def test_a_subscriber_that_fails_harms_nobody(messaging: LocalMessaging, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str] = []

    def fails(text: str) -> None:
        raise RuntimeError(text)

    ends = [messaging.subscribe("ada", "t", call) for call in (fails, heard.append)]
    messaging.broadcast("ada", "t", "a")
    messaging.broadcast("ada", "t", "b")
    assert heard == ["a", "b"]
    assert "a subscriber failed" in caplog.text
    for end in ends:
        end()


def test_who_is_called_may_call_back(messaging: LocalMessaging) -> None:
    heard: list[str] = []
    end = messaging.subscribe("ada", "t", lambda text: messaging.push("ada", "q", text))
    waiting = messaging.pull("ada", "q")
    waiting.add_done_callback(lambda future: heard.append(taken(messaging.pull("ada", "other"))))
    messaging.push("ada", "other", "inner")
    messaging.broadcast("ada", "t", "outer")
    assert (heard, taken(waiting)) == (["inner"], "outer")
    end()


def test_limits_name_themselves() -> None:
    messaging = LocalMessaging(OwnerLimits(topics=2, queued=3, queued_bytes=10))
    messaging.push("ada", "a", "1234")
    messaging.push("ada", "b", "1234")
    with pytest.raises(Refused, match=r"^topics: an owner has at most 2"):
        messaging.push("ada", "c", "")
    with pytest.raises(Refused, match=r"^topics: "):
        messaging.pull("ada", "c")
    with pytest.raises(Refused, match=r"^queued_bytes: .* 10 bytes"):
        messaging.push("ada", "a", "äöü")
    messaging.push("ada", "a", "ä")
    with pytest.raises(Refused, match=r"^queued: an owner has at most 3"):
        messaging.push("ada", "a", "")
    messaging.push("bob", "c", "1234567890")
    for name in ("", "t" * (MAX_TOPIC + 1)):
        with pytest.raises(BadRequest, match="1 to 1024 characters"):
            messaging.push("ada", name, "")
    assert messaging.counts("ada") == Counts(topics=2, messages=3, bytes=10)


def test_who_waits_is_no_queue() -> None:
    messaging = LocalMessaging(OwnerLimits(topics=1, queued=1, queued_bytes=1))
    waiting = [messaging.pull("ada", "t") for _ in range(10)]
    for number in range(10):
        messaging.push("ada", "t", "longer than the limit, and nothing is queued")
        assert waiting[number].done()


def test_a_topic_has_so_many_subscribers() -> None:
    messaging = LocalMessaging()
    heard: list[str] = []
    ends = [messaging.subscribe("ada", "t", heard.append) for _ in range(MAX_SUBSCRIBERS)]
    with pytest.raises(Refused, match="1024 subscribers"):
        messaging.subscribe("ada", "t", heard.append)
    messaging.broadcast("ada", "t", "x")
    assert len(heard) == MAX_SUBSCRIBERS
    for end in ends:
        end()
    assert messaging.counts("ada").topics == 0


def test_a_refused_push_leaves_no_topic() -> None:
    messaging = LocalMessaging(OwnerLimits(topics=1, queued=1, queued_bytes=4))
    with pytest.raises(Refused):
        messaging.push("ada", "t", "12345")
    assert messaging.counts("ada") == Counts()


def test_many_threads_lose_and_double_nothing(messaging: LocalMessaging) -> None:
    """Half of the pullers give up, before their message is there or after."""
    sent = [f"{who}-{number}" for who in range(4) for number in range(200)]
    got: list[str] = []
    stop = threading.Event()

    def pulls(gives_up: bool) -> None:
        while not stop.is_set():
            future = messaging.pull("ada", "t")
            if gives_up and future.cancel():
                continue
            while not stop.is_set():
                try:
                    got.append(future.result(0.01))
                    break
                except TimeoutError:
                    continue
            else:
                future.cancel()

    def pushes(who: int) -> None:
        for number in range(200):
            messaging.push("ada", "t", f"{who}-{number}")

    pullers = [threading.Thread(target=pulls, args=(number % 2 == 0,)) for number in range(4)]
    pushers = [threading.Thread(target=pushes, args=(number,)) for number in range(4)]
    for thread in pullers + pushers:
        thread.start()
    for thread in pushers:
        thread.join()
    deadline = threading.Event()
    while len(got) < len(sent) and not deadline.wait(0.005):
        pass
    stop.set()
    for thread in pullers:
        thread.join()
    assert sorted(got) == sorted(sent)
    assert messaging.counts("ada") == Counts()


class AgainstModel(RuleBasedStateMachine):
    """Any sequence of calls, beside lists that do the same in the plainest way."""

    def __init__(self) -> None:
        super().__init__()
        self.real = LocalMessaging()
        self.sent = 0
        #: By topic: numbers that wait, pulls that wait; pulls that have a number and did not take it.
        self.queue: dict[str, list[int]] = {"a": [], "b": []}
        self.line: dict[str, list[Future[str]]] = {"a": [], "b": []}
        self.handed: list[tuple[str, Future[str], int]] = []

    topics = st.sampled_from("ab")

    @rule(topic=topics)
    def push(self, topic: str) -> None:
        self.sent += 1
        self.real.push("ada", topic, str(self.sent))
        self._give(topic, self.sent)

    @rule(topic=topics)
    def pull(self, topic: str) -> None:
        future = self.real.pull("ada", topic)
        if self.queue[topic]:
            self.handed.append((topic, future, self.queue[topic].pop(0)))
        else:
            self.line[topic].append(future)

    @precondition(lambda self: self.handed)
    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        _, future, number = self.handed.pop(data.draw(st.integers(0, len(self.handed) - 1)))
        assert taken(future) == str(number)
        assert not future.cancel()

    @precondition(lambda self: self.handed)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        topic, future, number = self.handed.pop(data.draw(st.integers(0, len(self.handed) - 1)))
        assert future.cancel()
        self._give(topic, number)

    @rule(topic=topics, data=st.data())
    def leave_the_line(self, topic: str, data: st.DataObject) -> None:
        if self.line[topic]:
            assert self.line[topic].pop(data.draw(st.integers(0, len(self.line[topic]) - 1))).cancel()

    def _give(self, topic: str, number: int) -> None:
        if self.line[topic]:
            self.handed.append((topic, self.line[topic].pop(0), number))
        else:
            self.queue[topic] = sorted([*self.queue[topic], number])

    @invariant()
    def same(self) -> None:
        waiting = [number for queue in self.queue.values() for number in queue]
        counts = self.real.counts("ada")
        assert counts.messages == len(waiting)
        assert counts.bytes == sum(len(str(number)) for number in waiting)
        assert counts.topics == sum(bool(self.queue[topic] or self.line[topic]) for topic in "ab")
        assert all(future.done() for _, future, _ in self.handed)
        assert not any(future.done() for line in self.line.values() for future in line)


TestAgainstModel = AgainstModel.TestCase
TestAgainstModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@given(st.lists(st.text(max_size=20), max_size=30))
@settings(max_examples=30, deadline=None)
def test_any_text_comes_out_as_it_went_in(texts: list[str]) -> None:
    messaging = LocalMessaging()
    for text in texts:
        messaging.push("ada", "t", text)
    assert [taken(messaging.pull("ada", "t")) for _ in texts] == texts
