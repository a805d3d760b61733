"""Names, ids and locks, over a store that only counts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bakehouse.engine.adapters.base import AdapterStore, ZoParams
from bakehouse.engine.adapters.table import AdapterTable
from bakehouse.engine.errors import BadRequest, EngineError, LimitExceeded, Locked, NameTaken, NotFound
from bakehouse.engine.plan.step import StepPlan


class CountingStore(AdapterStore):
    """Slots and generations without weights. ``calls``: what was asked of it."""

    def __init__(self, capacity: int = 3) -> None:
        self.capacity = capacity
        self.slots: dict[int, int] = {}
        self.calls: list[str] = []
        self._generations = itertools.count(1)

    def create(self) -> int:
        free = [slot for slot in range(self.capacity) if slot not in self.slots]
        if not free:
            raise LimitExceeded("full")
        self.slots[free[0]] = next(self._generations)
        return free[0]

    def clone(self, slot: int) -> int:
        self.calls.append(f"clone {slot}")
        return self.create()

    def remove(self, slot: int) -> None:
        del self.slots[slot]

    def has_zo(self, slot: int) -> bool:
        return slot in self.slots

    def generation(self, slot: int) -> int:
        return self.slots[slot]

    def load(self, slot: int, path: Path) -> None:
        self.calls.append(f"load {slot}")
        self.slots[slot] = next(self._generations)

    def save(self, slot: int, path: Path) -> None:
        self.calls.append(f"save {slot}")

    def initialize_zo(self, slot: int, params: ZoParams) -> None:
        self.calls.append(f"initialize {slot}")

    def update_zo(self, slot: int, scores: Sequence[float], seeds: Sequence[int], max_sigma: float) -> None:
        self.calls.append(f"update {slot}")

    def begin(self, plan: StepPlan) -> None:
        self.calls.append("begin")


PARAMS = ZoParams(rank=2, alpha=4, population=4, mu_fraction=0.5, sigma=0.1)


def test_a_name_is_found_by_everybody_and_taken_once() -> None:
    table = AdapterTable(CountingStore())
    made = table.create("style")
    assert table.lookup("style") is made
    assert table.lookup("other") is None
    with pytest.raises(NameTaken, match="style"):
        table.create("style")
    with pytest.raises(NameTaken):
        table.clone(made.id, "style")
    assert len(table.names()) == 1


@pytest.mark.parametrize("name", ["", "x" * 257])
def test_a_name_is_a_short_text(name: str) -> None:
    with pytest.raises(BadRequest):
        AdapterTable(CountingStore()).create(name)


def test_a_slot_is_used_again_and_an_id_is_not() -> None:
    table = AdapterTable(CountingStore(capacity=1))
    first = table.create("a")
    with pytest.raises(LimitExceeded):
        table.create("b")
    table.remove(first.id, "p")
    with pytest.raises(NotFound):
        table.get(first.id)
    second = table.create("a")
    assert (second.slot, second.id != first.id) == (first.slot, True)


def test_locks_use_up_no_slots() -> None:
    table = AdapterTable(CountingStore(capacity=2))
    made = table.create("a")
    for _ in range(20):
        assert table.acquire(made.id, "p")
        table.release(made.id, "p")
    table.create("b")


def test_a_lock_is_exclusive_and_can_be_had_again_after_release() -> None:
    table = AdapterTable(CountingStore())
    made = table.create("a")
    assert table.acquire(made.id, "p")
    assert not table.acquire(made.id, "q")
    assert not table.acquire(made.id, "p")
    with pytest.raises(Locked, match="'a'"):
        table.release(made.id, "q")
    table.release(made.id, "p")
    table.release(made.id, "p")
    assert table.acquire(made.id, "q")


def test_the_end_of_a_program_frees_its_locks_alone() -> None:
    table = AdapterTable(CountingStore())
    one, two = table.create("a"), table.create("b")
    assert table.acquire(one.id, "p") and table.acquire(two.id, "q")
    table.end_program("p")
    assert table.acquire(one.id, "r")
    assert not table.acquire(two.id, "r")


def test_only_the_holder_changes_a_locked_adapter() -> None:
    store = CountingStore()
    table = AdapterTable(store)
    made = table.create("a")
    assert table.acquire(made.id, "p")
    for change in (
        lambda program: table.load(made.id, Path("x"), program),
        lambda program: table.initialize_zo(made.id, PARAMS, program),
        lambda program: table.update_zo(made.id, [1.0], [1], 0.0, program),
        lambda program: table.remove(made.id, program),
    ):
        with pytest.raises(Locked):
            change("q")
    assert store.calls == []
    table.save(made.id, Path("x"))
    copy = table.clone(made.id, "copy")
    table.load(copy.id, Path("x"), "q")
    table.load(made.id, Path("x"), "p")
    assert store.calls == ["save 0", "clone 0", "load 1", "load 0"]
    assert table.generation(made.id) == store.slots[0]


def test_a_prepared_change_is_refused_when_another_has_locked_or_removed_the_adapter_meanwhile() -> None:
    store = CountingStore()
    table = AdapterTable(store)
    made = table.create("a")
    changes = [table.prepare_load(made.id, Path("x"), "p"), table.prepare_update(made.id, [1.0], [1], 0.0, "p")]
    assert store.calls == []
    assert table.acquire(made.id, "q")
    for change in changes:
        with pytest.raises(Locked):
            change()
    table.release(made.id, "q")
    changes[0]()
    assert store.calls == ["load 0"]
    table.remove(made.id, "p")
    table.create("b")
    with pytest.raises(NotFound):
        changes[1]()
    assert store.calls == ["load 0"]


def test_a_store_that_refuses_leaves_no_name() -> None:
    table = AdapterTable(CountingStore(capacity=0))
    with pytest.raises(LimitExceeded):
        table.create("a")
    assert table.lookup("a") is None


NAMES = st.sampled_from(["a", "b", "c", "d"])
PROGRAMS = st.sampled_from(["p", "q"])


class Tables(RuleBasedStateMachine):
    """Random calls against a dictionary of name to (slot, holder)."""

    def __init__(self) -> None:
        super().__init__()
        self.store = CountingStore()
        self.table = AdapterTable(self.store)
        self.model: dict[str, str | None] = {}

    def _id(self, name: str) -> int:
        entry = self.table.lookup(name)
        return entry.id if entry is not None else 10**6

    def _tried(self, call: object, *args: object) -> bool:
        try:
            call(*args)  # type: ignore[operator]
        except EngineError:
            return False
        return True

    @rule(name=NAMES)
    def create(self, name: str) -> None:
        free = name not in self.model and len(self.model) < self.store.capacity
        assert self._tried(self.table.create, name) == free
        if free:
            self.model[name] = None

    @rule(source=NAMES, name=NAMES)
    def clone(self, source: str, name: str) -> None:
        free = source in self.model and name not in self.model and len(self.model) < self.store.capacity
        assert self._tried(self.table.clone, self._id(source), name) == free
        if free:
            self.model[name] = None

    @rule(name=NAMES, program=PROGRAMS)
    def remove(self, name: str, program: str) -> None:
        allowed = name in self.model and self.model[name] in (None, program)
        assert self._tried(self.table.remove, self._id(name), program) == allowed
        if allowed:
            del self.model[name]

    @rule(name=NAMES, program=PROGRAMS)
    def acquire(self, name: str, program: str) -> None:
        if name in self.model:
            assert self.table.acquire(self._id(name), program) == (self.model[name] is None)
            self.model[name] = self.model[name] or program

    @rule(name=NAMES, program=PROGRAMS)
    def release(self, name: str, program: str) -> None:
        allowed = name in self.model and self.model[name] in (None, program)
        assert self._tried(self.table.release, self._id(name), program) == allowed
        if allowed:
            self.model[name] = None

    @rule(program=PROGRAMS)
    def end(self, program: str) -> None:
        self.table.end_program(program)
        self.model = {name: None if holder == program else holder for name, holder in self.model.items()}

    @invariant()
    def they_agree(self) -> None:
        assert self.table.names() == sorted(self.model)
        assert len(self.store.slots) == len(self.model)


TestTables = Tables.TestCase
TestTables.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
