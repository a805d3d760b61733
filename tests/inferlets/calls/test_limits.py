"""Each limit of an instance: what hits it fails by its name and value, and the instance goes on, or ends alone."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from bakehouse.engine.errors import LimitExceeded
from bakehouse.inferlets.calls.guest import Guest
from bakehouse.inferlets.calls.packing import pack_ids
from bakehouse.inferlets.errors import Ended, Refused
from tests.inferlets.calls.support import Make, context, forward, generated, items, model, start, taken


def test_contexts_and_forks_count_alike(make: Make) -> None:
    guest = make(contexts=3)
    which = context(guest)
    fork = guest.calls.contexts.fork(which, "kept")
    context(guest)
    calls: list[Callable[[], Any]] = [
        lambda: context(guest),
        lambda: guest.calls.contexts.fork(which, None),
        lambda: guest.calls.contexts.lookup(model(guest), "kept"),
        lambda: guest.calls.contexts.create(guest.calls.models.load("other"), None),
    ]
    for call in calls:
        with pytest.raises(Refused, match=r"contexts: .* 3"):
            call()
    guest.calls.contexts.release(fork)
    context(guest)


def test_a_refused_pass_fails_alone(make: Make) -> None:
    """Ten pages of four tokens. What another program has does not count."""
    other = make(pages=100)
    generated(other, context(other), max_tokens=200)
    guest = make(pages=10)
    which = context(guest, "x" * 30)
    taken(guest, guest.calls.passes.flush(which))
    wait = start(guest, which, max_tokens=100)
    with pytest.raises(LimitExceeded, match=r"pages: .* 10 KV pages and need 1 more, at most 10"):
        items(guest, wait)
    assert guest.calls.contexts.state(which)
    with pytest.raises(LimitExceeded, match="pages"):
        guest.calls.contexts.fork(which, None)
    with pytest.raises(LimitExceeded, match="pages"):
        forward(guest, tokens=[65] * 41)
    with pytest.raises(LimitExceeded, match="pages"):
        guest.calls.contexts.reserve_pages(which, 11)
    guest.calls.contexts.release(which)
    assert len(generated(guest, context(guest, "x" * 30), max_tokens=9)) == 9


def test_shared_pages_count_for_each_context(make: Make) -> None:
    guest = make(pages=10)
    which = context(guest, "x" * 17)
    taken(guest, guest.calls.passes.flush(which))
    fork = guest.calls.contexts.fork(which, None)
    with pytest.raises(LimitExceeded, match="have 8 KV pages and need 4 more"):
        guest.calls.contexts.fork(which, None)
    guest.calls.contexts.release(fork)
    guest.calls.contexts.fork(which, None)


def test_a_context_of_another_program_counts_when_it_is_opened(make: Make) -> None:
    first, guest = make(), make(pages=3)
    which = first.calls.contexts.create(model(first), "long")
    first.calls.contexts.append(which, pack_ids([65] * 20))
    taken(first, first.calls.passes.flush(which))
    with pytest.raises(LimitExceeded, match="pages"):
        guest.calls.contexts.lookup(model(guest), "long")
    assert len(generated(guest, context(guest, "abc"), max_tokens=2)) == 2


def test_matchers_masks_and_decoders(make: Make) -> None:
    guest = make(matchers=2)
    grammars, decoders = guest.calls.grammars, guest.calls.decoders
    first = int(taken(guest, grammars.create(model(guest), "regex", "a")))
    coming = grammars.create(model(guest), "regex", "b")
    for _ in range(2):
        grammars.next_mask(first)
        decoders.create(model(guest), False, False)
    calls: list[Callable[[], Any]] = [
        lambda: grammars.create(model(guest), "regex", "c"),
        lambda: grammars.next_mask(first),
        lambda: grammars.create_mask(pack_ids([0, 5])),
        lambda: decoders.create(model(guest), False, False),
    ]
    for call in calls:
        with pytest.raises(Refused, match=r"matchers: .* 2"):
            call()
    guest.calls.waits.drop(coming)
    int(taken(guest, grammars.create(model(guest), "regex", "c")))


def test_waits(make: Make) -> None:
    guest = make(waits=2)
    waits = [guest.calls.client.receive() for _ in range(2)]
    which = context(guest)
    before = guest.calls.contexts.state(which)
    calls: list[Callable[[], Any]] = [
        guest.calls.client.receive,
        lambda: guest.calls.passes.flush(which),
        lambda: start(guest, which),
        lambda: guest.calls.messaging.subscribe("topic"),
        lambda: guest.calls.messaging.pull("topic"),
        lambda: guest.calls.runtime.spawn("pkg@1.0.0", "[]"),
        lambda: guest.calls.grammars.create(model(guest), "regex", "c"),
        lambda: guest.calls.mcp.connect("kitchen"),
    ]
    for call in calls:
        with pytest.raises(Refused, match=r"waits: .* 2"):
            call()
    assert guest.calls.contexts.state(which) == before
    guest.calls.waits.drop(waits[0])
    taken(guest, guest.calls.passes.flush(which))


@pytest.mark.parametrize(
    "call",
    [
        lambda calls, which, long: calls.contexts.say(which, "user", long),
        lambda calls, which, long: calls.contexts.equip_tools(which, long),
        lambda calls, which, long: calls.models.encode(1, long),
        lambda calls, which, long: calls.grammars.create(1, "regex", long),
        lambda calls, which, long: calls.passes.generate(which, long),
        lambda calls, which, long: calls.passes.forward(1, long),
        lambda calls, which, long: calls.runtime.spawn("p@1.0.0", json.dumps([long])),
        lambda calls, which, long: calls.messaging.broadcast("topic", long),
        lambda calls, which, long: calls.mcp.connect(long),
    ],
)
def test_texts_have_a_size(make: Make, call: Callable[[Any, int, str], Any]) -> None:
    guest = make(message=1000)
    which = context(guest)
    with pytest.raises(Refused, match=r"message: .* 1000 bytes"):
        call(guest.calls, which, "x" * 1001)


@pytest.mark.parametrize(
    "call",
    [
        lambda calls, which, long: calls.contexts.append(which, long),
        lambda calls, which, long: calls.contexts.commit_pages(which, long),
        lambda calls, which, long: calls.models.decode(1, long),
        lambda calls, which, long: calls.grammars.create_mask(long),
        lambda calls, which, long: calls.decoders.feed(calls.decoders.create(1, False, False), long),
    ],
)
def test_packed_values_have_a_size(make: Make, call: Callable[[Any, int, str], Any]) -> None:
    guest = make(message=1000)
    which = context(guest)
    with pytest.raises(Refused, match=r"message: .* 1000 bytes"):
        call(guest.calls, which, "\0" * 1004)


def test_what_follows_a_text_is_bounded_until_it_is_reset(make: Make) -> None:
    guest = make(message=1000)
    decoders, grammars = guest.calls.decoders, guest.calls.grammars
    decoder = decoders.create(model(guest), False, False)
    matcher = int(taken(guest, grammars.create(model(guest), "regex", "a*")))
    for feed, reset, which in (
        (decoders.feed, decoders.reset, decoder),
        (decoders.feed, decoders.finish, decoder),
        (grammars.accept, grammars.reset, matcher),
    ):
        for _ in range(2):
            feed(which, pack_ids([97] * 200))
            with pytest.raises(Refused, match=r"message: .* 1000 bytes"):
                feed(which, pack_ids([97] * 51))
            reset(which)


def test_what_matchers_and_decoders_remember_has_room(make: Make) -> None:
    guest = make(memory=1_000_000)
    grammars, decoders = guest.calls.grammars, guest.calls.decoders
    matcher = int(taken(guest, grammars.create(model(guest), "regex", "a*")))
    other = int(taken(guest, grammars.create(model(guest), "regex", "a*")))
    decoder = decoders.create(model(guest), False, False)
    ids = pack_ids([97] * 1500)
    grammars.accept(matcher, ids)
    decoders.feed(decoder, ids)
    for call in (lambda: grammars.accept(other, ids), lambda: decoders.feed(decoder, ids)):
        with pytest.raises(Refused, match=r"memory: .* 1000000 bytes"):
            call()
    grammars.reset(matcher)
    grammars.accept(other, ids)
    decoders.finish(decoder)
    decoders.feed(decoder, ids)
    grammars.release(other)
    decoders.release(decoder)
    assert guest.room._used == 0


def test_results_of_a_pass_have_a_size(make: Make) -> None:
    guest = make(file=10_000, memory=12_000)
    tokens = [65] * 8
    few = {"tokens": tokens, "samplers": [{"indices": [0, 1, 2], "sampler": {"kind": "dist"}}]}
    for sampler in ({"kind": "dist"}, {"kind": "embedding"}):
        with pytest.raises(Refused, match=r"file: .* 10000 bytes"):
            forward(guest, tokens=tokens, samplers=[{"indices": list(range(8)) * 6, "sampler": sampler}])
    waits = [guest.calls.passes.forward(model(guest), json.dumps(few))]
    with pytest.raises(Refused, match="memory"):
        guest.calls.passes.forward(model(guest), json.dumps(few))
    taken(guest, waits[0])
    guest.calls.waits.drop(guest.calls.passes.forward(model(guest), json.dumps(few)))
    forward(guest, **few)


def test_what_waits_in_buffers_counts_as_pages(make: Make) -> None:
    guest = make(pages=10)
    contexts, which = guest.calls.contexts, context(guest, "x" * 30)
    for call in (
        lambda: contexts.append(which, pack_ids([65] * 11)),
        lambda: contexts.set_buffer(which, pack_ids([65] * 41)),
        lambda: contexts.fork(which, None),
        lambda: contexts.say(which, "user", "x" * 10),
    ):
        with pytest.raises(LimitExceeded, match="pages"):
            call()
    contexts.append(which, pack_ids([65] * 10))
    taken(guest, guest.calls.passes.flush(which))
    for _ in range(100):
        contexts.set_buffer(which, pack_ids([65] * 30))


def test_no_more_waits_can_be_asked_for_than_there_may_be(make: Make) -> None:
    guest = make(waits=10)
    with pytest.raises(Refused, match="waits"):
        guest.calls.waits.any("\1\0\0\0" * 100_000, 0)


def test_a_flood_of_calls_ends_the_instance(make: Make) -> None:
    guest, other = make(calls=50), make()
    for _ in range(500):
        guest.calls.runtime.version()
    with pytest.raises(Ended):
        guest.calls.runtime.version()
    assert guest.failure is not None
    assert guest.failure.limit == "calls"
    assert "calls: more than 50 host calls a second" in guest.failure.message
    with pytest.raises(Ended):
        guest.calls.runtime.version()
    assert len(generated(other, context(other), max_tokens=3)) == 3


def test_calls_are_counted_over_ten_seconds(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    guest = make(calls=50)
    for _ in range(3):
        for _ in range(500):
            guest.calls.runtime.version()
        guest._counted_from -= 10.0  # so much later
    guest.calls.runtime.version()
    assert guest.failure is None


def test_a_million_contexts_are_not_to_be_had(guest: Guest) -> None:
    made = 0
    with contextlib.suppress(Refused):
        while made < 1_000_000:
            guest.calls.contexts.create(model(guest), None)
            made += 1
    assert made == guest.limits.contexts
