"""Drafts by n-grams (prompt lookup): what followed the last time the text ended like this. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable

from bakehouse.engine.params import PromptLookup

#: So many of the latest places are looked at, however often the text has been there.
CANDIDATES = 128

#: Drafts of a first try.
FIRST = 4


class NGrams:
    """The places of every n-gram of the shortest length in a growing list of tokens, kept up at O(1) per token.

    A place is the index behind the n-gram. Those of one n-gram are a chain: the latest, and before each the one before.
    """

    def __init__(self, lookup: PromptLookup, tokens: Iterable[int] = ()) -> None:
        self._lookup = lookup
        self._tokens: list[int] = []
        self._last: dict[tuple[int, ...], int] = {}
        """N-gram to the index after its latest occurrence; the list's own end is not in it yet."""
        self.extend(tokens)

    def extend(self, tokens: Iterable[int]) -> None:
        for token in tokens:
            self._remember_end()
            self._tokens.append(token)

    def _remember_end(self) -> None:
        end = len(self._tokens)
        for length in range(1, min(self._lookup.longest, end) + 1):
            self._last[tuple(self._tokens[end - length : end])] = end

    def propose(self, most: int) -> tuple[int, ...]:
        """At most *most* tokens, and at most as many as the lookup says; none where nothing like the end was seen."""
        count = min(self._lookup.tokens, most)
        end = len(self._tokens)
        if count <= 0:
            return ()
        for length in range(min(self._lookup.longest, end), 0, -1):
            after = self._last.get(tuple(self._tokens[end - length : end]))
            if after is not None:
                return self._copy(after, count)
        return ()

    def _copy(self, start: int, count: int) -> tuple[int, ...]:
        """*count* tokens from *start* on; behind the end the copy itself goes on, so that a repetition repeats."""
        period = len(self._tokens) - start
        return tuple(self._tokens[start + index % period] for index in range(count))


class Pace:
    """How many drafts are worth a try. Each takes a row of a step, so their number follows what held lately: it doubles
    when all did, and falls to one more than held when not."""

    def __init__(self) -> None:
        self.count = FIRST

    def tried(self, drafts: int, held: int) -> None:
        if drafts:
            self.count = max(self.count, 2 * drafts) if held == drafts else held + 1
