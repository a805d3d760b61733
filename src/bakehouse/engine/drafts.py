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
        self._latest: dict[tuple[int, ...], int] = {}
        self._before: list[int] = []
        """By place; 0 where there is none, and at places that are too early for an n-gram."""
        self.extend(tokens)

    def extend(self, tokens: Iterable[int]) -> None:
        for token in tokens:
            self._remember_end()
            self._tokens.append(token)

    def _remember_end(self) -> None:
        """The list's own end is not a place yet: nothing follows."""
        end, size = len(self._tokens), self._lookup.shortest
        before = 0
        if end >= size:
            key = tuple(self._tokens[end - size :])
            before = self._latest.get(key, 0)
            self._latest[key] = end
        self._before.append(before)

    def propose(self, most: int) -> tuple[int, ...]:
        """At most *most* tokens, and at most as many as the lookup says; none where nothing like the end was seen."""
        count = min(self._lookup.tokens, most)
        after = self._like_the_end() if count > 0 else 0
        return self._copy(after, count) if after else ()

    def _like_the_end(self) -> int:
        """The place whose text is most like the end, the latest of equals; 0 for none."""
        size, longest = self._lookup.shortest, self._lookup.longest
        if len(self._tokens) < size:
            return 0
        place = self._latest.get(tuple(self._tokens[-size:]), 0)
        best, alike = 0, 0
        for _ in range(CANDIDATES):
            if not place or alike == longest:
                break
            found = self._alike(place, longest)
            if found > alike:
                best, alike = place, found
            place = self._before[place]
        return best

    def _alike(self, place: int, longest: int) -> int:
        """How many tokens before *place* equal those at the end, up to *longest*."""
        tokens, end = self._tokens, len(self._tokens)
        length = self._lookup.shortest
        while length < min(longest, place) and tokens[place - length - 1] == tokens[end - length - 1]:
            length += 1
        return length

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
