"""Which instance runs a call, when another one starts and which one makes room. Plain data: no processes, no clock.

A *lane* here is a base lane: calls of it can share an instance. Each method gets the time (seconds, monotonic).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from bakehouse.core.executor import Capacity

BRISK = 0.020
"""Only where calls take less than these seconds are more of them put behind a busy instance: else they would wait there
while another instance could have run them."""

YOUNG = 2.0
SETTLED = 0.05
"""An instance that became ready less than ``YOUNG`` seconds ago and has been idle for less than ``SETTLED`` is kept:
two lanes that fight for one place would else spend their time in ``setup``."""

_SLOWER, _FASTER = 0.2, 0.5
"""How much one call moves the pace. A first call is often slow for reasons of its own, so better news counts more."""


def split_lane(lane: str) -> tuple[str, str | None]:
    """A task's lane as base lane and session id (None outside sessions)."""
    base, _, session = lane.partition("/session/")
    return base, session or None


@dataclass(frozen=True, slots=True)
class Need:
    """What an instance of a lane takes: bytes of memory that its app declares, GPUs, and its own idle timeout."""

    memory: int = 0
    gpus: int = 0
    slots: int = 1
    idle_timeout: float | None = None


@dataclass(slots=True)
class Member:
    """An instance as the pool sees it. ``running`` calls execute or wait for its start, ``held`` wait behind them.

    ``memory`` is the larger of what was declared and what was measured. ``session`` pins it. ``pace`` is the usual
    number of seconds of its calls; ``stalled``: the call that runs takes much longer than that.
    """

    id: str
    lane: str
    need: Need
    memory: int
    gpus: tuple[int, ...] = ()
    ready_at: float | None = None
    idle_since: float = 0.0
    calls: int = 0
    session: str | None = None
    pace: float | None = None
    stalled: bool = False

    @property
    def idle(self) -> bool:
        return self.ready_at is not None and self.calls == 0

    @property
    def free(self) -> int:
        """Calls that would execute at once, or as soon as it has started."""
        return max(0, self.need.slots - self.calls)


@dataclass(frozen=True, slots=True)
class Use:
    """Give the call to this instance."""

    member: str


@dataclass(frozen=True, slots=True)
class Start:
    """Start an instance for the call, with these GPUs, after ending the instances in *evict*."""

    evict: tuple[str, ...] = ()
    gpus: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Wait:
    """No room now. *until* is when to look again even if nothing else happens; None: when something changes.

    *evict* names idle instances to end already now, because their GPUs are free only when they are gone.
    """

    until: float | None = None
    evict: tuple[str, ...] = ()


Decision = Use | Start | Wait


@dataclass(slots=True)
class Pool:
    """All instances of this machine. ``leaving`` still use memory and GPUs but take no calls."""

    max_instances: int
    memory_budget: int
    prefetch: int
    idle_timeout: float
    gpus: tuple[int, ...] = ()
    members: dict[str, Member] = field(default_factory=dict)
    leaving: dict[str, Member] = field(default_factory=dict)
    needs: dict[str, Need] = field(default_factory=dict)
    _lanes: dict[str, dict[str, Member]] = field(default_factory=dict)
    _sessions: dict[str, Member] = field(default_factory=dict)

    # ---- what happens to instances -------------------------------------------------------------------------

    def add(self, member: Member) -> None:
        """*member* is starting."""
        self.members[member.id] = member
        self._lanes.setdefault(member.lane, {})[member.id] = member

    def ready(self, member: Member, now: float) -> None:
        """*member* has started and can run calls."""
        member.ready_at = now
        member.idle_since = now

    def took(self, member: Member, session: str | None) -> None:
        """*member* was given one more call, perhaps of a session, which then owns it."""
        member.calls += 1
        if session is not None:
            member.session = session
            self._sessions[session] = member

    def ended(self, member: Member, now: float, seconds: float | None = None) -> None:
        """A call of *member* ended; *seconds* is how long it executed, None if it did not."""
        member.calls -= 1
        member.idle_since = now
        if seconds is not None:
            member.stalled = False
            before = member.pace
            weight = _FASTER if before is not None and seconds < before else _SLOWER
            member.pace = seconds if before is None else before + weight * (seconds - before)

    def unpin(self, session: str) -> Member | None:
        """End *session*; the instance that it owned."""
        member = self._sessions.pop(session, None)
        if member is not None:
            member.session = None
        return member

    def leave(self, member: Member) -> None:
        """*member* takes no more calls; it still uses the machine until ``gone``."""
        if self.members.pop(member.id, None) is not None:
            self.leaving[member.id] = member
            self._drop_from_lane(member)

    def gone(self, member: Member) -> None:
        """*member* has ended and uses nothing any more."""
        if self.members.pop(member.id, None) is not None:
            self._drop_from_lane(member)
        self.leaving.pop(member.id, None)

    def _drop_from_lane(self, member: Member) -> None:
        lane = self._lanes[member.lane]
        del lane[member.id]
        if not lane:
            del self._lanes[member.lane]
        if member.session is not None:
            self._sessions.pop(member.session, None)

    # ---- questions -----------------------------------------------------------------------------------------

    def pinned(self, session: str) -> Member | None:
        """The instance that *session* owns."""
        return self._sessions.get(session)

    def capacity(self, lane: str, now: float, *, crowded: bool = False) -> Capacity:
        """How many more calls of *lane* (with its session, if any) fit now.

        ``crowded``: calls wait for room, so nobody else may start an instance or keep a busy one from becoming idle.
        """
        base, session = split_lane(lane)
        if session is not None:
            return self._session_capacity(base, session, now, crowded)
        ready = held = 0
        brisk = False
        for member in self._lanes.get(base, {}).values():
            if member.session is None:
                ready += member.free
                if self._brisk(member):
                    brisk = True
                    held += max(0, self.prefetch + member.need.slots - max(member.calls, member.need.slots))
        if crowded:
            return Capacity(ready)
        if not self._trivial(base):
            ready += self._startable(base, now)
        return Capacity(ready, held if brisk else 0)

    def _session_capacity(self, base: str, session: str, now: float, crowded: bool) -> Capacity:
        member = self._sessions.get(session)
        if member is not None:
            return Capacity(member.free, bound=True)
        # One call decides which instance the session owns; the next ones go there.
        return Capacity(min(1, self.capacity(base, now, crowded=crowded).ready))

    def look_again(self, lane: str, now: float) -> float | None:
        """When a lane without room may get some though nothing else happens: an idle instance may go by then."""
        return self._next_settled(split_lane(lane)[0], now)

    def place(self, lane: str, now: float) -> Decision:
        """Where a call of *lane* goes."""
        base, session = split_lane(lane)
        if session is not None and session in self._sessions:
            return Use(self._sessions[session].id)
        mine = [member for member in self._lanes.get(base, {}).values() if member.session is None]
        free = [member for member in mine if member.free]
        if free:
            return Use(max(free, key=lambda m: (m.ready_at is not None, m.idle_since)).id)
        if session is None:
            held = [m for m in mine if self._brisk(m) and m.calls < self.prefetch + m.need.slots]
            if held:
                return Use(min(held, key=lambda m: m.calls).id)
        return self._start(base, now)

    def expired(self, now: float) -> list[Member]:
        """Instances that have been idle for too long."""
        return [
            member
            for member in self.members.values()
            if member.idle
            and member.session is None
            and now - member.idle_since >= (member.need.idle_timeout or self.idle_timeout)
        ]

    def pressed(self) -> Member | None:
        """The idle instance to end because all together use more memory than they may, if any."""
        if self._memory() <= self.memory_budget:
            return None
        return min(self._evictable(self.members.values()), key=lambda m: m.idle_since, default=None)

    def check_integrity(self) -> None:
        """Raise AssertionError unless the indexes agree with the members and the bounds hold."""
        listed = {member.id for lane in self._lanes.values() for member in lane.values()}
        assert listed == set(self.members), "lanes and members differ"
        assert len(self.members) <= self.max_instances, "too many instances"
        assert all(member.calls >= 0 for member in self.members.values()), "a negative number of calls"
        used = [gpu for m in (*self.members.values(), *self.leaving.values()) for gpu in m.gpus]
        assert len(used) == len(set(used)), "a GPU was given out twice"
        owned = {session: member.session for session, member in self._sessions.items()}
        assert all(session == name for session, name in owned.items()), "sessions and members differ"

    # ---- starting another one ------------------------------------------------------------------------------

    def _brisk(self, member: Member) -> bool:
        return not member.stalled and member.ready_at is not None and member.pace is not None and member.pace < BRISK

    def _trivial(self, base: str) -> bool:
        """Whether calls are so short that a full row of them ends sooner than another instance would help."""
        return any(
            self._brisk(member) and (member.pace or 0.0) * self.prefetch < BRISK
            for member in self._lanes.get(base, {}).values()
            if member.session is None
        )

    def _startable(self, base: str, now: float) -> int:
        """How many instances of *base* could start now, ending idle ones of other lanes where that makes room."""
        need = self.needs.get(base, Need())
        if need.gpus or need.memory:
            decision = self._start(base, now)
            return need.slots if isinstance(decision, Start) or decision.evict else 0
        idle = sum(1 for member in self._others(base) if self._may_go(member, now))
        return (self.max_instances - len(self.members) + idle) * need.slots

    def _start(self, base: str, now: float) -> Start | Wait:
        need = self.needs.get(base, Need())
        room = self.max_instances - len(self.members)
        memory = self.memory_budget - self._memory()
        if not self.members and not self.leaving:
            memory = max(memory, need.memory)  # alone on the machine: whether it fits there was asked at deploy
        free = [gpu for gpu in self.gpus if gpu not in self._gpus_in_use()]
        coming = len(free)
        evict: list[str] = []
        for member in sorted(self._others(base), key=lambda m: m.idle_since):
            if room > 0 and memory >= need.memory and coming >= need.gpus:
                break
            if self._may_go(member, now):
                evict.append(member.id)
                room, memory, coming = room + 1, memory + member.memory, coming + len(member.gpus)
        if room <= 0 or memory < need.memory or coming < need.gpus:
            return Wait(self._next_settled(base, now))
        if len(free) < need.gpus:
            return Wait(None, tuple(evict))
        return Start(tuple(evict), tuple(free[: need.gpus]))

    def _gpus_in_use(self) -> set[int]:
        return {gpu for m in (*self.members.values(), *self.leaving.values()) for gpu in m.gpus}

    def _memory(self) -> int:
        return sum(m.memory for m in self.members.values()) + sum(m.memory for m in self.leaving.values())

    def _others(self, base: str) -> list[Member]:
        return self._evictable(m for m in self.members.values() if m.lane != base)

    def _evictable(self, members: Iterable[Member]) -> list[Member]:
        return [member for member in members if member.idle and member.session is None]

    def _may_go(self, member: Member, now: float) -> bool:
        return now >= _settled_at(member)

    def _next_settled(self, base: str, now: float) -> float | None:
        """When the first kept instance may go after all."""
        return min((_settled_at(m) for m in self._others(base) if not self._may_go(m, now)), default=None)


def _settled_at(member: Member) -> float:
    """When an idle member has served or waited for long enough to be ended."""
    return min((member.ready_at or 0.0) + YOUNG, member.idle_since + SETTLED)
