"""Workers beside the model: whose turn it is."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from bakehouse.engine.aside import Workers


@pytest.fixture
def worker() -> Iterator[Workers]:
    made = Workers(1, "test")
    yield made
    made.shutdown()


def test_owners_take_turns(worker: Workers) -> None:
    done: list[str] = []
    begun, go = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        go.wait()

    worker.run("greedy", hold)
    begun.wait()
    pieces = [worker.run("greedy", lambda: done.append("greedy")) for _ in range(100)]
    pieces += [worker.run(owner, lambda owner=owner: done.append(owner)) for owner in ("ada", "bob", "ada")]  # type: ignore[misc]
    go.set()
    for piece in pieces:
        piece.result(10)
    assert done[:5] == ["greedy", "ada", "bob", "greedy", "ada"]
    assert done.count("greedy") == 100


def test_what_a_piece_gives_is_its_callers(worker: Workers) -> None:
    assert worker.run("ada", lambda: 7).result(10) == 7
    with pytest.raises(ZeroDivisionError):
        worker.run("ada", lambda: 1 // 0).result(10)


def test_what_is_given_up_before_its_turn_is_left_out() -> None:
    worker, go, done = Workers(1, "test"), threading.Event(), list[int]()
    first = worker.run("ada", lambda: go.wait(10))
    second, third = (worker.run("ada", lambda number=number: done.append(number)) for number in (2, 3))  # type: ignore[misc]
    assert second.cancel()
    go.set()
    third.result(10)
    assert first.result(10) and done == [3]
    worker.shutdown()


def test_at_the_end_nobody_is_left_waiting() -> None:
    worker, go, begun = Workers(1, "test"), threading.Event(), threading.Event()

    def hold() -> bool:
        begun.set()
        return go.wait(10)

    first = worker.run("ada", hold)
    begun.wait(10)
    others = [worker.run("bob", lambda: None) for _ in range(3)]
    ending = threading.Thread(target=worker.shutdown)
    ending.start()
    go.set()
    ending.join(10)
    assert first.result(10) and all(other.done() for other in others)


def test_nobody_has_all_threads() -> None:
    workers, go = Workers(3, "test"), threading.Event()
    held = [workers.run("greedy", lambda: go.wait(10)) for _ in range(10)]
    assert workers.run("ada", lambda: "served").result(10) == "served"
    assert sum(piece.running() for piece in held) <= 2
    go.set()
    assert all(piece.result(10) for piece in held)
    workers.shutdown()
    assert not workers._running
