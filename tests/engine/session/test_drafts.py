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


@given(TOKENS, TOKENS, st.integers(1, 5), st.integers(1, 4), st.integers(0, 6))
def test_it_proposes_what_followed_last_time(prompt, generated, tokens, longest, most):
    lookup = PromptLookup(tokens=tokens, longest=longest)
    drafts = NGrams(lookup, prompt)
    drafts.extend(generated)
    assert drafts.propose(most) == search(prompt + generated, lookup, most)
