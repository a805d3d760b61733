"""Programs that want everything for themselves: they get their owner's share, and another owner's run beside them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from bakehouse.engine.handle import Engine
from bakehouse.inferlets.base import Limits, Outcome, OwnerLimits
from bakehouse.inferlets.errors import Refused
from bakehouse.inferlets.host import InferletHost
from bakehouse.inferlets.messaging import LocalMessaging
from bakehouse.inferlets.programs import ProgramStore
from bakehouse.inferlets.sandbox import Sandbox
from tests.inferlets.host.support import Seen, launch

SHARE = OwnerLimits(instances=24, topics=10, queued=500, queued_bytes=64 << 10)


@pytest.fixture
def host(engine: Engine, sandbox: Sandbox, programs: ProgramStore) -> Iterator[InferletHost]:
    made = InferletHost(engine, sandbox, programs, limits=SHARE)
    yield made
    made.close()
    assert made.stats()["instances"] == 0


def honest(host: InferletHost) -> None:
    """Somebody else's programs do their work, and in no long time."""
    started = time.monotonic()
    puller = host.launch(launch("tool", "pull", "t1", owner="bob"), Seen())
    assert host.launch(launch("tool", "push", "t1", "bread", owner="bob"), Seen()).wait(30) == Outcome("")
    assert puller.wait(30) == Outcome("bread")
    spawned = host.launch(launch("tool", "spawn", "tool", "echo", "rye", owner="bob"), Seen())
    assert spawned.wait(30) == Outcome("child: rye")
    assert time.monotonic() - started < 10


def test_a_fork_bomb(host: InferletHost) -> None:
    bomb = host.launch(launch("tool", "bomb", "tool"), Seen())
    deadline = time.monotonic() + 60
    while len(host.instances("ada")) < SHARE.instances:
        assert time.monotonic() < deadline
        honest(host)
    honest(host)
    with pytest.raises(Refused, match="instances: an owner"):
        host.launch(launch("tool", "echo"), Seen())
    assert len(host.instances("ada")) == SHARE.instances
    bomb.terminate()
    assert bomb.wait(30) is not None
    assert host.instances("ada") == []
    assert host.launch(launch("tool", "echo", "again"), Seen()).wait(30) == Outcome("again")


def test_a_fork_bomb_is_bounded_by_its_own_limits_too(host: InferletHost) -> None:
    """Two children each, two levels deep: seven at most."""
    bomb = host.launch(launch("tool", "bomb", "tool", limits=Limits(children=2, depth=2)), Seen())
    deadline = time.monotonic() + 30
    while len(host.instances("ada")) < 7:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    honest(host)
    assert len(host.instances("ada")) == 7
    bomb.terminate()
    assert bomb.wait(30) is not None
    assert host.instances("ada") == []


def test_a_flood_of_messages(host: InferletHost) -> None:
    for text, taken in (("x", SHARE.queued), ("x" * 1024, 0)):
        flood = host.launch(launch("tool", "flood", text), Seen())
        honest(host)
        assert flood.wait(60) == Outcome(str(taken))
    messaging = host.services.messaging
    assert isinstance(messaging, LocalMessaging)
    counts = messaging.counts("ada")
    assert (counts.topics, counts.messages, counts.bytes) == (SHARE.topics, SHARE.queued, SHARE.queued)
