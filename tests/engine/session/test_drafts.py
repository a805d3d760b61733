"""Prompt lookup against a search through the whole text."""

from hypothesis import given
from hypothesis import strategies as st

from bakehouse.engine.drafts import CANDIDATES, FIRST, NGrams, Pace
from bakehouse.engine.params import PromptLookup

TOKENS = st.lists(st.integers(0, 3), max_size=40)


def search(tokens: list[int], lookup: PromptLookup, most: int) -> tuple[int, ...]:
    """What followed the latest earlier occurrence of the longest suffix that occurred before."""
    count = min(lookup.tokens, most)
    for length in range(min(lookup.longest, len(tokens)), lookup.shortest - 1, -1):
        suffix = tokens[len(tokens) - length :]
        for start in range(len(tokens) - length - 1, -1, -1):
            if tokens[start : start + length] == suffix:
                text = list(tokens)
                for at in range(start + length, start + length + count):
                    text.append(text[at])
                return tuple(text[len(tokens) :])
    return ()


@given(TOKENS, TOKENS, st.integers(1, 5), st.integers(1, 4), st.integers(0, 3), st.integers(0, 6))
def test_it_proposes_what_followed_last_time(prompt, generated, tokens, shortest, more, most):
    lookup = PromptLookup(tokens=tokens, longest=shortest + more, shortest=shortest)
    drafts = NGrams(lookup, prompt)
    drafts.extend(generated)
    assert drafts.propose(most) == search(prompt + generated, lookup, most)


def test_of_many_places_the_latest_are_looked_at() -> None:
    """The longer one, at the beginning, is one place too far."""
    tokens = [7, 8, 1] + [9, 8, 2] * CANDIDATES + [7, 8]
    assert NGrams(PromptLookup(longest=2), tokens).propose(1) == (2,)
    assert NGrams(PromptLookup(longest=2), tokens[3:-2] + tokens[:3] + [7, 8]).propose(1) == (1,)


def test_drafts_become_more_while_they_hold_and_few_when_not() -> None:
    pace = Pace()
    assert pace.count == FIRST
    pace.tried(4, 4)
    assert pace.count == 8
    pace.tried(0, 0)  # nothing was proposed, which says nothing
    assert pace.count == 8
    pace.tried(2, 2)  # fewer than might have been
    assert pace.count == 8
    pace.tried(8, 5)
    assert pace.count == 6
    pace.tried(6, 0)
    assert pace.count == 1
    pace.tried(1, 1)
    assert pace.count == 2
