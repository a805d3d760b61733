"""Forks on a real model: at, before and after a border of pages, with and without unflushed buffers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bakehouse.engine.params import PromptLookup
from tests.engine.right.support import (
    TOLERANCE,
    WAIT_S,
    Open,
    assert_greedy,
    distributions,
    eager_logs,
    filled,
    some_tokens,
    start,
    tokens_of,
)

PAGE = 16
EagerOf = Callable[[str], Any]


BORDERS = [0, 1, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE - 1, 2 * PAGE, 2 * PAGE + 1]


@pytest.mark.parametrize(
    ("family", "run", "buffered"),
    [("llama", run, buffered) for run in BORDERS for buffered in (1, 2, 20)]
    + [("gemma3", run, 5) for run in BORDERS[2:]],
)
def test_forks_equal_a_fresh_context(family: str, run: int, buffered: int, open_: Open, eager: EagerOf) -> None:
    """Every prompt is unlike all others, so that nothing comes from the prefix cache; the reference is transformers."""
    session, prompt = open_(family), some_tokens(run + buffered, seed=100 * run + buffered)
    parent = filled(session, prompt, buffered)
    children = [session.fork_context(parent) for _ in range(2)]
    grandchild = session.fork_context(children[1])
    for context in (children[0], parent, grandchild, children[1]):
        assert session.context_state(context).buffered == tuple(prompt[run:])
        assert_greedy(eager(family), prompt, tokens_of(start(session, context)))


@pytest.mark.parametrize("run", [3, PAGE - 1, PAGE, PAGE + 1, 40])
def test_what_is_said_after_a_fork_stays_in_its_branch(run: int, open_: Open, eager: EagerOf) -> None:
    """All branches write to the page that they shared, in the same steps."""
    session, prompt = open_("qwen3"), some_tokens(run + 1, seed=run)
    parent = filled(session, prompt)
    branches = []
    for number in range(6):
        context = session.fork_context(parent)
        own = some_tokens(number * 3, seed=1000 + number)
        session.append_tokens(context, own)
        branches.append((prompt + own, start(session, context)))
    branches.append((prompt, start(session, parent)))
    for said, stream in branches:
        assert_greedy(eager("qwen3"), said, tokens_of(stream))


@pytest.mark.parametrize("taken", [1, 5, 12, 13, 14])
@pytest.mark.parametrize("draft", [None, PromptLookup(longest=1)])
def test_a_fork_of_a_running_generation_holds_what_was_taken(
    taken: int, draft: PromptLookup | None, open_: Open, eager: EagerOf
) -> None:
    session, prompt = open_("llama"), some_tokens(19, seed=taken)
    context = filled(session, prompt)
    stream = start(session, context, max_tokens=40, draft=draft)
    got: list[int] = []
    while len(got) < taken:
        got += next(stream).tokens
    child = session.fork_context(context)
    assert_greedy(eager("llama"), prompt + got, tokens_of(start(session, child)))
    assert_greedy(eager("llama"), prompt, got + tokens_of(stream))


def test_distributions_of_a_fork_equal_eager(open_: Open, eager: EagerOf) -> None:
    """Bit by bit: not only the best token."""
    session, tokens = open_("mistral"), some_tokens(90, seed=5)
    parent = session.create_context()
    distributions(session, tokens[:41], context=parent)
    child = session.fork_context(parent)
    ours = distributions(session, tokens[41:], context=child)
    assert (ours - eager_logs(eager("mistral"), tokens)[41:]).abs().max() < TOLERANCE
    other = some_tokens(30, seed=6)
    again = distributions(session, other, context=parent)
    assert (again - eager_logs(eager("mistral"), tokens[:41] + other)[41:]).abs().max() < TOLERANCE


def test_a_context_cut_back_goes_on_as_if_it_had_not_been_longer(open_: Open, eager: EagerOf) -> None:
    session, tokens = open_("llama"), some_tokens(60, seed=12)
    context = session.create_context()
    session.reserve_pages(context, 4)
    distributions(session, tokens, context=context)
    session.set_cursor(context, 37)
    other = some_tokens(20, seed=13)
    ours = distributions(session, other, context=context)
    assert (ours - eager_logs(eager("llama"), tokens[:37] + other)[37:]).abs().max() < TOLERANCE
    session.commit_pages(context, [0, 1, 2])
    session.flush(context).result(WAIT_S)
    child = session.fork_context(context)
    last = distributions(session, [5, 6], context=child)
    assert (last - eager_logs(eager("llama"), tokens[:37] + other + [5, 6])[57:]).abs().max() < TOLERANCE
