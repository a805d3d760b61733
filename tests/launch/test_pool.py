"""Placement as plain data: examples, and random histories that must keep the pool's invariants."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bakehouse.core.executor import Capacity
from bakehouse.launch.pool import Member, Need, Pool, Start, Use, Wait, split_lane

GIB = 1024**3


def make(**changes: object) -> Pool:
    settings: dict[str, object] = {"max_instances": 2, "memory_budget": 8 * GIB, "prefetch": 4, "idle_timeout": 60.0}
    return Pool(**(settings | changes))  # type: ignore[arg-type]


def grow(
    pool: Pool, name: str, lane: str, now: float = 0.0, *, ready: bool = True, gpus: tuple[int, ...] = ()
) -> Member:
    need = pool.needs.get(lane, Need())
    member = Member(name, lane, need, need.memory, gpus)
    pool.add(member)
    if ready:
        pool.ready(member, now)
    return member


def test_a_lane_names_its_session() -> None:
    assert split_lane("app/o/v/s/r/-") == ("app/o/v/s/r/-", None)
    assert split_lane("app/o/v/s/r/-/session/ses_1") == ("app/o/v/s/r/-", "ses_1")


def test_an_idle_instance_of_the_lane_is_preferred_the_last_used_first() -> None:
    pool = make()
    grow(pool, "old", "a", 1.0)
    grow(pool, "new", "a", 2.0)
    assert pool.place("a", 5.0) == Use("new")


def test_another_instance_starts_while_there_is_room() -> None:
    pool = make()
    assert pool.capacity("a", 0.0) == Capacity(2)
    assert pool.place("a", 0.0) == Start()
    pool.took(grow(pool, "1", "a"), None)
    assert pool.place("a", 0.0) == Start()
    pool.took(grow(pool, "2", "a"), None)
    assert pool.place("a", 0.0) == Wait()
    assert pool.capacity("a", 0.0) == Capacity(0)


def test_an_instance_whose_caller_left_while_it_started_is_used_again() -> None:
    pool = make()
    member = grow(pool, "1", "a", ready=False)
    pool.took(member, None)
    pool.ended(member, 0.0)
    assert pool.place("a", 0.0) == Use("1")


def test_the_least_recently_used_idle_instance_makes_room() -> None:
    pool = make()
    grow(pool, "older", "a", 1.0)
    grow(pool, "newer", "b", 2.0)
    assert pool.capacity("c", 10.0) == Capacity(2)
    assert pool.place("c", 10.0) == Start(evict=("older",))


def test_a_busy_or_pinned_instance_never_makes_room() -> None:
    pool = make()
    pool.took(grow(pool, "busy", "a"), None)
    pinned = grow(pool, "pinned", "a")
    pool.took(pinned, "ses_1")
    pool.ended(pinned, 0.0)
    assert pool.place("b", 100.0) == Wait()
    assert pool.capacity("b", 100.0) == Capacity(0)
    assert pool.expired(1000.0) == []


def test_an_instance_that_is_just_ready_is_not_thrown_away_at_once() -> None:
    pool = make(max_instances=1)
    grow(pool, "1", "a", 10.0)
    assert pool.place("b", 10.01) == Wait(until=10.05)
    assert pool.capacity("b", 10.01) == Capacity(0)
    assert pool.place("b", 10.06) == Start(evict=("1",))


def test_calls_are_held_behind_a_busy_instance_only_where_they_are_short() -> None:
    pool = make(max_instances=1)
    member = grow(pool, "1", "a")
    pool.took(member, None)
    assert pool.capacity("a", 0.0) == Capacity(0, 0)
    pool.ended(member, 0.0, seconds=0.010)
    pool.took(member, None)
    assert pool.capacity("a", 0.0) == Capacity(0, 4)
    assert pool.place("a", 0.0) == Use("1")
    for _ in range(20):
        pool.ended(member, 0.0, seconds=0.5)
        pool.took(member, None)
    assert pool.capacity("a", 0.0) == Capacity(0, 0)


def test_a_slow_first_call_is_soon_forgotten() -> None:
    pool = make()
    member = grow(pool, "1", "a")
    for seconds in (0.2, 0.001, 0.001, 0.001, 0.001, 0.001):
        pool.took(member, None)
        pool.ended(member, 0.0, seconds=seconds)
    assert pool.capacity("a", 0.0).prefetch == 4


def test_calls_too_short_to_share_stay_on_one_instance() -> None:
    pool = make()
    member = grow(pool, "1", "a")
    pool.took(member, None)
    pool.ended(member, 0.0, seconds=0.0001)
    assert pool.capacity("a", 0.0) == Capacity(1, 4)
    for _ in range(5):
        assert pool.place("a", 0.0) == Use("1")
        pool.took(member, None)
    assert pool.capacity("a", 0.0) == Capacity(0, 0)


def test_nothing_more_is_put_behind_a_call_that_takes_long() -> None:
    pool = make()
    member = grow(pool, "1", "a")
    pool.took(member, None)
    pool.ended(member, 0.0, seconds=0.0001)
    pool.took(member, None)
    member.stalled = True
    assert pool.capacity("a", 0.0) == Capacity(1, 0)
    assert pool.place("a", 0.0) == Start()
    pool.ended(member, 0.0, seconds=1.0)
    assert not member.stalled


def test_memory_that_is_in_use_bounds_starts_until_idle_ones_leave() -> None:
    pool = make(max_instances=9)
    pool.needs["big"] = Need(memory=6 * GIB)
    small = grow(pool, "small", "a")
    small.memory = 3 * GIB
    assert pool.place("big", 10.0) == Start(evict=("small",))
    pool.took(small, None)
    assert pool.place("big", 10.0) == Wait()
    assert pool.capacity("big", 10.0) == Capacity(0)


def test_an_idle_instance_leaves_when_all_use_too_much() -> None:
    pool = make()
    grow(pool, "1", "a", 1.0).memory = 5 * GIB
    assert pool.pressed() is None
    grow(pool, "2", "a", 2.0).memory = 5 * GIB
    found = pool.pressed()
    assert found is not None
    assert found.id == "1"


def test_a_gpu_is_free_only_when_its_instance_is_gone() -> None:
    pool = make(gpus=(0, 1))
    pool.needs["a"] = Need(gpus=2)
    pool.needs["b"] = Need(gpus=1)
    assert pool.place("a", 0.0) == Start(gpus=(0, 1))
    member = grow(pool, "1", "a", gpus=(0, 1))
    assert pool.place("b", 10.0) == Wait(evict=("1",))
    pool.leave(member)
    assert pool.place("b", 10.0) == Wait()
    pool.gone(member)
    assert pool.place("b", 10.0) == Start(gpus=(0,))


def test_a_session_keeps_its_instance_and_others_keep_off() -> None:
    pool = make()
    member = grow(pool, "1", "a")
    pool.took(member, "ses_1")
    assert pool.capacity("a/session/ses_1", 0.0) == Capacity(0, bound=True)
    pool.ended(member, 0.0, seconds=0.0001)
    assert pool.place("a/session/ses_1", 0.0) == Use("1")
    assert pool.place("a", 0.0) == Start()
    assert pool.place("a/session/ses_2", 0.0) == Start()
    assert pool.unpin("ses_1") is member
    assert pool.place("a", 0.0) == Use("1")


def test_idle_instances_end_by_age_and_an_app_may_choose_its_own() -> None:
    pool = make()
    pool.needs["quick"] = Need(idle_timeout=5.0)
    grow(pool, "1", "a", 0.0)
    grow(pool, "2", "quick", 0.0)
    assert [member.id for member in pool.expired(10.0)] == ["2"]
    assert {member.id for member in pool.expired(61.0)} == {"1", "2"}


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["call", "session call", "ready", "end", "die", "leave", "unpin"]),
        st.integers(0, 3),
        st.floats(0.0, 0.1),
    ),
    max_size=80,
)


@given(_STEPS, st.integers(1, 3), st.integers(0, 2))
def test_any_history_keeps_the_bounds(steps: list[tuple[str, int, float]], most: int, gpus: int) -> None:
    pool = Pool(most, 8 * GIB, 4, 60.0, tuple(range(gpus)))
    pool.needs = {"lane0": Need(memory=3 * GIB), "lane1": Need(gpus=1), "lane2": Need(slots=3)}
    now = 0.0
    for count, (step, which, seconds) in enumerate(steps):
        now += seconds
        members = list(pool.members.values())
        chosen = members[which % len(members)] if members else None
        if step in ("call", "session call"):
            lane = f"lane{which}" + ("/session/ses" if step == "session call" else "")
            _call(pool, lane, f"inst{count}", now)
        elif chosen is None:
            continue
        elif step == "ready" and chosen.ready_at is None:
            pool.ready(chosen, now)
        elif step == "end" and chosen.calls and chosen.ready_at is not None:
            pool.ended(chosen, now, seconds)
        elif step == "die":
            pool.gone(chosen)
        elif step == "leave":
            pool.leave(chosen)
        elif step == "unpin":
            pool.unpin("ses")
        pool.check_integrity()


def _call(pool: Pool, lane: str, name: str, now: float) -> None:
    room = pool.capacity(lane, now)
    decision = pool.place(lane, now)
    base, session = split_lane(lane)
    if room.ready + room.prefetch > 0:
        assert isinstance(decision, Use | Start) or decision.evict, "capacity promised a place that is not there"
    if isinstance(decision, Use):
        member = pool.members[decision.member]
        if session is None:
            assert member.session is None, "a stranger was put on a session's instance"
        pool.took(member, session)
        return
    for other in decision.evict:
        victim = pool.members[other]
        assert victim.idle
        assert victim.session is None
        assert victim.lane != base
        pool.leave(victim)
        pool.gone(victim)
    if isinstance(decision, Start):
        pool.took(grow(pool, name, base, now, ready=False, gpus=decision.gpus), session)


def test_while_others_wait_for_room_a_lane_uses_only_what_is_idle() -> None:
    pool = make(max_instances=3)
    member = grow(pool, "1", "a")
    pool.took(member, None)
    pool.ended(member, 0.0, seconds=0.015)
    assert pool.capacity("a", 0.0, crowded=True) == Capacity(1, 0)
    pool.took(member, None)
    assert pool.capacity("a", 0.0, crowded=True) == Capacity(0, 0)
    assert pool.capacity("b", 0.0, crowded=True) == Capacity(0, 0)
    assert pool.capacity("b/session/ses_1", 0.0, crowded=True) == Capacity(0, 0)
