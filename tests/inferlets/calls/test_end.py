"""The end of an instance, in any state and from any thread: nothing of it is left, and others do not notice."""

from __future__ import annotations

import contextlib
import random
import threading

import pytest

from bakehouse.engine.errors import EngineError
from bakehouse.inferlets.base import Failure
from bakehouse.inferlets.calls.guest import Guest
from bakehouse.inferlets.errors import Ended, InferletError
from tests.inferlets.calls.support import Aside, Make, context, generated, items, model, start, taken


def test_every_call_is_refused_once_it_is_to_end(guest: Guest) -> None:
    which = context(guest)
    guest.end(Failure("cancelled", "enough"))
    guest.end(Failure("limit_exceeded", "later", limit="wall"))
    assert guest.failure == Failure("cancelled", "enough")
    for interface in vars(guest.calls).values():
        for name in dir(interface):
            if not name.startswith("_"):
                with pytest.raises(Ended):
                    getattr(interface, name)(*[which] * 3)


def test_a_generation_in_the_middle_is_ended(make: Make) -> None:
    guest, other = make(), make()
    which = context(guest)
    waits = [start(guest, guest.calls.contexts.fork(which, None), max_tokens=5000) for _ in range(8)]
    for wait in waits:
        taken(guest, wait)
    blocked = [Aside(lambda wait=wait: items(guest, wait)) for wait in waits]
    guest.close()
    for aside in blocked:
        with pytest.raises(Ended):
            aside.result()
    assert len(generated(other, context(other), max_tokens=5)) == 5


def test_a_grammar_that_is_being_compiled_is_left(guest: Guest) -> None:
    rule = "|".join(f"word{number}[a-z]{{1,40}}" for number in range(300))
    aside = Aside(lambda: start(guest, context(guest), grammar={"kind": "regex", "source": rule}))
    coming = guest.calls.grammars.create(model(guest), "regex", rule + "|x")
    guest.calls.waits.drop(coming)
    guest.end(Failure("cancelled", "enough"))
    with contextlib.suppress(Ended):  # It may have been quicker than this thread.
        aside.result()
    guest.close()


def test_closing_may_come_from_many_threads_and_with_calls_under_way(make: Make) -> None:
    """Whatever the guest's thread is doing when it is closed fails as ended, or as released, and leaves nothing."""
    for seed in range(12):
        guest = make()
        chance = random.Random(seed)
        aside = Aside(lambda guest=guest, chance=chance: busy(guest, chance))
        for _ in range(chance.randrange(3)):
            context(guest)
        threads = [threading.Thread(target=guest.close) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with pytest.raises((EngineError, InferletError)):
            aside.result()


def busy(guest: Guest, chance: random.Random) -> None:
    contexts = guest.calls.contexts
    which = context(guest)
    while True:
        fork = contexts.fork(which, None)
        wait = start(guest, fork, max_tokens=50)
        if chance.random() < 0.5:
            guest.calls.waits.take(wait)
        if chance.random() < 0.5:
            contexts.release(fork)
        guest.calls.messaging.subscribe("topic")
        guest.calls.grammars.create(model(guest), "regex", "a{3}")


def test_what_an_instance_promised_ends_with_it_and_named_contexts_stay(make: Make) -> None:
    guest = make()
    named = guest.calls.contexts.create(model(guest), "stays")
    taken(guest, guest.calls.passes.flush(named))
    which = context(guest)
    start(guest, which, max_tokens=5000)
    guest.calls.client.receive()
    guest.calls.messaging.pull("topic")
    guest.calls.messaging.subscribe("topic")
    guest.calls.runtime.spawn("pkg@1.0.0", "[]")
    guest.calls.mcp.connect("kitchen")
    guest.calls.grammars.create(model(guest), "json", "")
    guest.close()
    assert guest.services.messaging.counts("ada").topics == 0  # type: ignore[attr-defined]
    later = make()
    assert later.calls.contexts.lookup(model(later), "stays") is not None


def test_a_defect_is_told_and_harms_only_its_call(
    guest: Guest, monkeypatch: pytest.MonkeyPatch, caplog: object
) -> None:
    def broken(text: str) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(guest.outlet, "message", broken)
    with pytest.raises(InferletError, match="ZeroDivisionError: a defect"):
        guest.calls.client.send("x")
    assert guest.calls.runtime.version()
