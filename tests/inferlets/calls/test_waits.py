"""Results that are there later: taking, choosing among many, dropping, and being woken."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable

import pytest

from bakehouse.engine.errors import BadRequest, Cancelled, NotFound
from bakehouse.inferlets.base import Failure
from bakehouse.inferlets.calls.guest import Guest
from bakehouse.inferlets.calls.packing import pack_ids
from bakehouse.inferlets.errors import Ended
from tests.inferlets.calls.support import Aside, Make, context, generated, items, ready, start, state, taken


def test_a_future_is_taken_once(guest: Guest) -> None:
    wait = guest.calls.passes.flush(context(guest))
    assert taken(guest, wait) == ""
    with pytest.raises(NotFound, match=f"wait {wait}"):
        guest.calls.waits.take(wait)


def test_a_stream_ends_with_none_and_then_its_number_is_gone(guest: Guest) -> None:
    wait = start(guest, context(guest), max_tokens=3)
    assert [item["finish"] for item in items(guest, wait)][-1] == "length"
    assert len(guest.waits) == 0
    with pytest.raises(NotFound):
        guest.calls.waits.take(wait)


def test_a_stream_whose_end_nobody_asks_for_takes_no_room(make: Make) -> None:
    guest = make(waits=2)
    for _ in range(5):
        wait = start(guest, context(guest), max_tokens=1)
        taken(guest, wait)
    assert len(guest.waits) == 0


def test_any_tells_those_that_are_ready(guest: Guest) -> None:
    never = guest.calls.client.receive()
    waits = [guest.calls.client.receive() for _ in range(3)]
    assert ready(guest, [never, *waits]) == []
    guest.deliver("for the one that asked first")
    assert ready(guest, waits) == []
    assert ready(guest, [*waits, never], -1) == [never]
    guest.deliver("for the next")
    assert ready(guest, [*waits, never]) == [never, waits[0]]
    assert taken(guest, waits[0]) == "for the next"


def test_any_of_a_stream_that_is_at_its_end_answers_at_once(guest: Guest) -> None:
    wait = start(guest, context(guest), max_tokens=1)
    taken(guest, wait)
    assert ready(guest, [wait], -1) == [wait]
    assert guest.calls.waits.take(wait) is None


def test_any_waits_no_longer_than_it_was_told(guest: Guest) -> None:
    started = time.monotonic()
    assert ready(guest, [guest.calls.client.receive()], 0.05) == []
    assert ready(guest, [], 0.05) == []
    assert 0.1 <= time.monotonic() - started < 5


@pytest.mark.parametrize(("waits", "seconds"), [([], -1.0), ([1], float("nan"))])
def test_waiting_for_nothing_and_for_ever_is_refused(guest: Guest, waits: list[int], seconds: float) -> None:
    guest.calls.client.receive()
    with pytest.raises(BadRequest):
        ready(guest, waits, seconds)


def test_any_of_what_is_no_wait_is_refused(guest: Guest) -> None:
    with pytest.raises(NotFound, match="wait 99"):
        ready(guest, [99], 0)
    with pytest.raises(BadRequest, match="4 bytes"):
        guest.calls.waits.any("abc", 0)
    with pytest.raises(BadRequest, match="packed"):
        guest.calls.waits.any("€" * 4, 0)


def test_a_blocked_take_is_woken_by_its_result(guest: Guest) -> None:
    wait = guest.calls.client.receive()
    aside = Aside(lambda: guest.calls.waits.take(wait))
    guest.deliver("hello")
    assert aside.result() == "hello"


@pytest.mark.parametrize("blocked", ["take", "any"])
def test_the_end_of_the_instance_wakes_whoever_waits(guest: Guest, blocked: str) -> None:
    wait = guest.calls.client.receive()
    waits = guest.calls.waits
    aside = Aside(lambda: waits.take(wait) if blocked == "take" else waits.any(pack_ids([wait]), -1))
    guest.end(Failure("cancelled", "enough"))
    with pytest.raises(Ended):
        aside.result()
    with pytest.raises(Ended):
        waits.take(wait)


def test_what_is_dropped_is_unknown_and_frees_its_place(make: Make) -> None:
    guest = make(waits=1)
    for _ in range(3):
        wait = guest.calls.client.receive()
        guest.calls.waits.drop(wait)
        guest.calls.waits.drop(wait)
    with pytest.raises(NotFound):
        guest.calls.waits.take(wait)


def test_dropping_a_generation_cuts_its_context_to_what_was_taken(guest: Guest) -> None:
    whole = generated(guest, context(guest), max_tokens=20)
    which = context(guest)
    wait = start(guest, which, max_tokens=20)
    first = taken(guest, wait)
    ready(guest, [wait], -1)  # looking takes nothing
    guest.calls.waits.drop(wait)
    assert whole[:1] == json.loads(first)["tokens"]
    assert state(guest, which)["buffered"] == whole[:1]
    assert generated(guest, which, max_tokens=19) == whole[1:]


def test_dropping_a_whole_generation_leaves_the_context_as_it_was(guest: Guest) -> None:
    which = context(guest, "abc")
    wait = start(guest, which, max_tokens=5000, whole=True)
    assert ready(guest, [wait], 0.05) == []
    guest.calls.waits.drop(wait)
    found = state(guest, which)
    assert found["buffered"] == [ord("c")]
    assert found["cursor"] + 4 * found["committed_pages"] == 2


def test_releasing_a_context_ends_what_generates_on_it(guest: Guest) -> None:
    which = context(guest)
    wait = start(guest, which, max_tokens=5000)
    taken(guest, wait)
    guest.calls.contexts.release(which)
    with pytest.raises(Cancelled):
        items(guest, wait)


def test_when_ready_calls_once_whatever_the_result(guest: Guest) -> None:
    told: list[str] = []

    def tell(name: str) -> Callable[[], None]:
        return lambda: told.append(name)

    waits = guest.waits
    first, second, third = (guest.calls.client.receive() for _ in range(3))
    for name, wait in (("first", first), ("dropped", second), ("ended", third)):
        waits.when_ready(wait, tell(name))
    assert told == []
    guest.deliver("hello")
    assert told == ["first"]
    waits.when_ready(first, tell("there already"))
    waits.when_ready(4711, tell("unknown"))
    guest.calls.waits.drop(second)
    guest.end(Failure("cancelled", "enough"))
    assert told == ["first", "there already", "unknown", "dropped", "ended"]


def test_a_reader_that_cannot_be_told_harms_nobody(guest: Guest, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise RuntimeError("its event loop is closed")

    wait = guest.calls.passes.flush(context(guest, "x" * 200))
    guest.waits.when_ready(wait, fail)
    assert taken(guest, wait) == ""
    assert len(generated(guest, context(guest), max_tokens=4)) == 4


def test_ten_thousand_waits(make: Make) -> None:
    """Each result wakes once and costs what is ready, not what waits."""
    guest = make(waits=10_100, queue=10_100)
    waits = [guest.calls.client.receive() for _ in range(10_000)]
    packed = pack_ids(waits)
    started = time.monotonic()
    aside = Aside(lambda: guest.calls.waits.any(packed, -1))
    for number in range(10_000):
        guest.deliver(str(number))
    assert aside.result()
    assert ready(guest, waits) == waits
    assert [taken(guest, wait) for wait in waits] == [str(number) for number in range(10_000)]
    assert time.monotonic() - started < 20
    assert len(guest.waits) == 0


def test_ten_thousand_waits_are_freed_at_the_end(make: Make) -> None:
    guest = make(waits=10_000)
    which = context(guest)
    wait = start(guest, which, max_tokens=5000)
    for _ in range(9_999):
        guest.calls.client.receive()
    guest.close()
    assert len(guest.waits) == 0
    with pytest.raises(Ended):
        guest.calls.waits.take(wait)


def test_a_generation_that_is_read_from_two_threads_and_gathered_loses_nothing(guest: Guest) -> None:
    for _ in range(10):
        wait = start(guest, context(guest), max_tokens=60)
        asides = [Aside(lambda wait=wait: tokens_until_gone(guest, wait)) for _ in range(2)]
        with contextlib.suppress(NotFound):
            guest.waits.gather(wait)
        assert sum(aside.result() for aside in asides) == 60


def tokens_until_gone(guest: Guest, wait: int) -> int:
    count = 0
    with contextlib.suppress(NotFound, Cancelled):  # The other thread took the end.
        while (item := guest.calls.waits.take(wait)) is not None:
            count += len(json.loads(item)["tokens"])
    return count
