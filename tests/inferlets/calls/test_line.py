"""Work beside the model: one piece at a time for each instance, in order, and given up in any state."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from bakehouse.engine.errors import Cancelled
from bakehouse.inferlets.calls.guest import Guest
from bakehouse.inferlets.calls.line import Line
from tests.inferlets.calls.support import Make, context, generated, model, taken


class Works:
    """Pieces of work that a test ends."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.futures: dict[int, Future[int]] = {}

    def __call__(self, number: int) -> Callable[[], Future[int]]:
        def start() -> Future[int]:
            self.begun.append(number)
            return self.futures.setdefault(number, Future())

        return start


def test_one_after_the_other() -> None:
    line, works = Line(), Works()
    found = [line.run(works(number)) for number in range(3)]
    assert works.begun == [0]
    works.futures[0].set_result(10)
    assert (found[0].result(), works.begun) == (10, [0, 1])
    works.futures[1].set_exception(ValueError("no"))
    with pytest.raises(ValueError, match="no"):
        found[1].result()
    works.futures[2].set_result(12)
    assert found[2].result() == 12


def test_what_is_given_up_before_its_turn_never_begins() -> None:
    line, works = Line(), Works()
    found = [line.run(works(number)) for number in range(3)]
    found[1].give_up()
    found[0].give_up()
    assert found[1].cancelled() and not found[0].done()
    works.futures[0].set_result(10)
    assert (found[0].result(), works.begun) == (10, [0, 2])
    works.futures[2].cancel()
    with pytest.raises(Cancelled):
        found[2].result()


def test_what_cannot_begin_stops_nobody() -> None:
    def refuse() -> Future[int]:
        raise ValueError("not here")

    line, works = Line(), Works()
    first, second, third = line.run(works(0)), line.run(refuse), line.run(works(1))
    works.futures[0].set_result(1)
    with pytest.raises(ValueError, match="not here"):
        second.result()
    works.futures[1].set_result(2)
    assert (first.result(), third.result()) == (1, 2)


def test_work_that_is_over_at_once_may_be_as_much_as_it_likes() -> None:
    line, done = Line(), Future[int]()
    done.set_result(1)
    first: Future[int] = Future()
    line.run(lambda: first)
    rest = [line.run(lambda: done) for _ in range(5000)]
    first.set_result(0)
    assert sum(each.result() for each in rest) == 5000


def test_many_threads() -> None:
    line, together, most = Line(), [0], [0]
    guard = threading.Lock()

    def work(number: int) -> int:
        with guard:
            together[0] += 1
            most[0] = max(most[0], together[0])
        with guard:
            together[0] -= 1
        return number

    with ThreadPoolExecutor(8) as pool, ThreadPoolExecutor(4) as workers:
        asked = [pool.submit(lambda n=n: line.run(lambda: workers.submit(work, n)).result(20)) for n in range(500)]
        assert [each.result(20) for each in asked] == list(range(500))
    assert most == [1]


def test_a_flood_of_grammars_holds_up_its_own_instance_only(make: Make) -> None:
    hostile, honest = make(), make()
    rule = "|".join(f"word{number}[a-z]{{1,30}}" for number in range(200))
    waits = [hostile.calls.grammars.create(model(hostile), "regex", f"{rule}|x{number}") for number in range(60)]
    which = int(taken(honest, honest.calls.grammars.create(model(honest), "regex", "(yes|no)!")))
    assert generated(honest, context(honest), matcher=which, stop=None)
    assert len(hostile.aside._waiting) > 40
    hostile.close()
    assert not hostile.aside._waiting
    assert waits


def test_a_grammar_that_is_refused_is_told_when_its_turn_comes(guest: Guest) -> None:
    waits = [guest.calls.grammars.create(model(guest), "regex", source) for source in ("a", "(", "b")]
    assert taken(guest, waits[0]) and taken(guest, waits[2])
    with pytest.raises(Exception, match="grammar"):
        taken(guest, waits[1])
