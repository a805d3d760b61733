"""Who is next: fairness between owners, lanes that have no room, tasks for later, tasks that went away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from bakehouse.core.executor import Capacity
from bakehouse.core.task import QueuedTask
from bakehouse.dispatch.backlog import Backlog, Lane


def task(number: int, owner: str = "a", lane: str = "x", run_at: int | None = None) -> QueuedTask:
    return QueuedTask(f"task_{number}", "app", owner, lane, run_at, number)


def filled(*tasks: QueuedTask) -> Backlog:
    backlog = Backlog()
    for item in tasks:
        backlog.add(item, now=0)
    return backlog


def everywhere(ready: int, prefetch: int = 0) -> Callable[[Lane], Capacity]:
    return lambda lane: Capacity(ready, prefetch)


def ids(tasks: list[QueuedTask]) -> list[str]:
    return [item.id for item in tasks]


def test_one_lane_is_first_in_first_out() -> None:
    backlog = filled(*(task(i) for i in range(5)))
    assert ids(backlog.take(everywhere(3), 10)) == ["task_0", "task_1", "task_2"]
    assert len(backlog) == 2


def test_a_thousand_tasks_of_one_owner_do_not_starve_another() -> None:
    backlog = filled(*(task(i, "busy") for i in range(1000)), task(1000, "small"))
    first = backlog.take(lambda lane: Capacity(2), 2)
    assert {item.owner_id for item in first} == {"busy", "small"}


def test_the_owner_with_fewer_running_tasks_goes_first() -> None:
    backlog = filled(task(1, "a"), task(2, "b"))
    for _ in range(3):
        backlog.started("a")
    assert ids(backlog.take(everywhere(1), 1)) == ["task_2"]


def test_a_lane_without_room_does_not_hold_up_its_owner() -> None:
    backlog = filled(task(1, lane="full"), task(2, lane="free"))
    room = {"full": 0, "free": 1}
    assert ids(backlog.take(lambda lane: Capacity(room[lane[1]]), 5)) == ["task_2"]
    assert "task_1" in backlog


def test_no_prefetch_while_a_lane_is_starved() -> None:
    backlog = filled(task(1, "a", "warm"), task(2, "a", "warm"), task(3, "b", "cold"))

    def room(lane: Lane) -> Capacity:
        return Capacity(0, 8) if lane[1] == "warm" else Capacity(0, 0)

    assert backlog.take(room, 5) == []
    backlog.discard("task_3")
    assert ids(backlog.take(room, 5)) == ["task_1", "task_2"]


def test_a_busy_session_or_another_kind_does_not_stop_prefetch() -> None:
    backlog = filled(task(1, "a", "warm"), task(2, "b", "session"))
    backlog.add(QueuedTask("task_3", "build", "b", "build", None, 3), now=0)

    def room(lane: Lane) -> Capacity:
        return Capacity(0, 8) if lane[1] == "warm" else Capacity(0, bound=lane[1] == "session")

    assert ids(backlog.take(room, 5)) == ["task_1"]


def test_a_task_for_later_waits_for_its_time() -> None:
    backlog = filled(task(1, run_at=100))
    assert backlog.due(99) == 100
    assert backlog.idle() and backlog.take(everywhere(5), 5) == []
    assert backlog.due(100) is None
    assert ids(backlog.take(everywhere(5), 5)) == ["task_1"]


def test_discarded_and_doubled_tasks() -> None:
    backlog = filled(task(1), task(1), task(2))
    backlog.discard("task_1")
    assert ids(backlog.take(everywhere(5), 5)) == ["task_2"]
    assert len(backlog) == 0 and backlog.idle()


def test_a_task_that_came_back_goes_to_the_front() -> None:
    backlog = filled(task(1), task(2))
    backlog.add(task(0), now=0, front=True)
    assert ids(backlog.take(everywhere(2), 2)) == ["task_0", "task_1"]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), max_size=40),
    st.dictionaries(st.sampled_from("xyz"), st.integers(0, 6)),
    st.integers(1, 30),
)
def test_take_never_overfills_loses_or_doubles(
    waiting: list[tuple[str, str]], ready: dict[str, int], limit: int
) -> None:
    backlog = filled(*(task(i, owner, f"{owner}/{lane}") for i, (owner, lane) in enumerate(waiting)))

    def room(lane: Lane) -> Capacity:
        return Capacity(ready.get(lane[1][-1], 0))

    taken = backlog.take(room, limit)
    assert len(taken) <= limit
    assert len(set(ids(taken))) == len(taken)
    assert len(backlog) == len(waiting) - len(taken)
    for lane, count in Counter(item.lane for item in taken).items():
        assert count <= ready.get(lane[-1], 0)
    if len(taken) < limit:  # nothing that fits was left behind
        used = Counter(item.lane for item in taken)
        left = Counter(f"{owner}/{lane}" for owner, lane in waiting) - used
        assert all(used[lane] >= ready.get(lane[-1], 0) for lane in left)


def test_who_was_cancelled_in_line_counts_no_longer_and_who_waits_for_later_does() -> None:
    backlog = filled(task(1), task(2), task(3, "b"), task(4, "b", run_at=10))
    backlog.discard("task_2")
    assert (backlog.count("a"), backlog.count("b")) == (1, 2)
    backlog.take(lambda lane: Capacity(9), 9)
    assert (backlog.count("a"), backlog.count("b")) == (0, 1)
