"""Children and topics, as programs use them."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait

import pytest

from bakehouse.engine.handle import Engine
from bakehouse.inferlets.base import Limits, Outcome, OwnerLimits
from bakehouse.inferlets.errors import BadProgram, NoSuchProgram, NotRunning, Refused, SpawnFailed
from bakehouse.inferlets.host import InferletHost, Instance
from bakehouse.inferlets.programs import ProgramStore
from bakehouse.inferlets.sandbox import Sandbox
from tests.inferlets.host.conftest import Start
from tests.inferlets.host.support import Seen, launch

Finish = Callable[..., Outcome]


def failure_of(outcome: Outcome) -> str:
    assert outcome.failure is not None
    return outcome.failure.message


@pytest.mark.parametrize("program", ["tool", "tool@1.0.0", "test:tool@1.0.0"])
def test_a_child_gives_its_parent_its_result(finish: Finish, program: str) -> None:
    assert finish("spawn", program, "echo", "a", "b") == Outcome("child: a b")


def test_a_child_that_fails_is_an_error_of_its_parent(finish: Finish) -> None:
    text = failure_of(finish("spawn", "tool", "raise", "no bread"))
    assert text.startswith("SpawnFailed: tool@1.0.0: ValueError: no bread")


def test_what_cannot_be_spawned_is_said_at_once(finish: Finish) -> None:
    assert "not installed" in failure_of(finish("spawn", "nothing@1.0.0"))
    assert "names no program" in failure_of(finish("spawn", "no program"))


def test_a_child_prints_to_its_parents_client(start: Start) -> None:
    instance, seen = start("spawn", "tool", "print", "hello")
    assert instance.wait(60) == Outcome("child: ")
    assert seen.of("stdout") == ["hello\n"]


def test_a_child_is_its_parents_owners(finish: Finish) -> None:
    child = finish("spawn", "tool", "id").result
    assert child.endswith(" ada") and not child.startswith("i")


def test_programs_spawn_each_other_so_deep_only(finish: Finish) -> None:
    # Each level takes a thread and a slot while it waits, so nothing may wait for a free one.
    assert finish("deeper", "tool", limits=Limits(depth=3)).result.startswith("LimitExceeded: depth: ")


def test_children_end_with_their_parent(host: InferletHost, start: Start) -> None:
    parent, _ = start("spawn", "tool", "spawn", "tool", "receive")
    child, grandchild = descendants(host, 2)
    parent.terminate()
    assert parent.wait(10) is not None
    assert host.stats()["instances"] == 0
    for each in (child, grandchild):
        assert each.outcome is not None and each.outcome.failure is not None
        assert each.outcome.failure.code == "cancelled"


def test_trees_end_whole_whenever_that_is(host: InferletHost, start: Start) -> None:
    """Terminated before the children are there, while they start, and after."""
    for number in range(24):
        parent, seen = start("spawn", "tool", "spawn", "tool", "receive")
        time.sleep(number * 0.002)
        parent.terminate()
        assert parent.wait(10) is not None
        assert host.instances("ada") == [] and len(seen.ends) == 1


def test_a_child_that_nobody_waits_for_any_more_ends(host: InferletHost, start: Start) -> None:
    parent, _ = start("receive")
    result = host.services.spawn(parent.launch, "tool", ("receive",))
    (child,) = descendants(host, 1)
    assert result.cancel()
    assert child.wait(10) is not None
    assert parent.children == {}
    parent.terminate()


def test_a_parent_has_so_many_children_only(host: InferletHost, start: Start) -> None:
    parent, _ = start("receive", limits=Limits(children=2))
    results = [host.services.spawn(parent.launch, "tool", ("receive",)) for _ in range(2)]
    with pytest.raises(Refused, match="children: a program has at most 2"):
        host.services.spawn(parent.launch, "tool", ("echo",))
    descendants(host, 2)[0].terminate()
    with pytest.raises(SpawnFailed, match="terminated"):
        first_of(results).result(10)
    assert host.services.spawn(parent.launch, "tool", ("echo", "room")).result(60) == "room"
    parent.terminate()


def test_children_count_for_the_owner(engine: Engine, sandbox: Sandbox, programs: ProgramStore) -> None:
    host = InferletHost(engine, sandbox, programs, limits=OwnerLimits(instances=1))
    outcome = host.launch(launch("tool", "spawn", "tool", "echo"), Seen()).wait(60)
    assert outcome is not None
    assert "instances: an owner has at most 1" in failure_of(outcome)
    host.close()


def test_a_family_computes_on_one_account(finish: Finish, host: InferletHost) -> None:
    outcome = finish("again", "spin", limits=Limits(cpu=0.3))
    assert outcome.failure is not None and outcome.failure.limit == "cpu"
    # The first child takes nearly all of it; those after it end at their first tick, and so does who spawns them.
    assert host.stats()["ended"]["limit_exceeded"] >= 2


def test_a_family_prints_on_one_account(start: Start) -> None:
    parent, seen = start("again", "tool", "print", "x" * 99, limits=Limits(output=1000, cpu=0.5))
    assert parent.wait(60) is not None
    assert sum(len(str(line)) for line in seen.of("stdout")) == 1000


def test_one_that_has_ended_spawns_nothing(host: InferletHost, start: Start) -> None:
    parent, _ = start("echo")
    assert parent.wait(60) is not None
    with pytest.raises(NotRunning):
        host.services.spawn(parent.launch, "tool", ())


def test_what_is_not_there_is_not_spawned(host: InferletHost, start: Start) -> None:
    parent, _ = start("pull", "nothing-comes")
    with pytest.raises(NoSuchProgram):
        host.services.spawn(parent.launch, "nothing", ())
    with pytest.raises(BadProgram):
        host.services.spawn(parent.launch, "", ())
    parent.terminate()


def test_programs_of_one_owner_talk_over_topics(start: Start) -> None:
    puller, seen = start("pull", "t")
    seen.wait_for("message")
    stranger, strange = start("pull", "t", owner="bob")
    strange.wait_for("message")
    assert start("push", "t", "one")[0].wait(60) == Outcome("")
    assert puller.wait(60) == Outcome("one")
    assert stranger.outcome is None
    stranger.terminate()


def test_a_puller_that_dies_loses_nothing(host: InferletHost, start: Start) -> None:
    dead, seen = start("pull", "t")
    seen.wait_for("message")
    dead.terminate()
    assert dead.wait(10) is not None
    assert start("push", "t", "one", "two")[0].wait(60) == Outcome("")
    assert start("pull", "t")[0].wait(60) == Outcome("one")
    assert start("pull", "t")[0].wait(60) == Outcome("two")
    assert host.services.messaging.counts("ada").topics == 0  # type: ignore[attr-defined]


def descendants(host: InferletHost, count: int) -> list[Instance]:
    """Those that were spawned, once there are *count*; the first ones first."""
    deadline = time.monotonic() + 30
    while len(found := [each for each in host.instances("ada") if each.launch.parent]) < count:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return found


def first_of(results: list[Future[str]]) -> Future[str]:
    return wait(results, timeout=10, return_when=FIRST_COMPLETED).done.pop()
