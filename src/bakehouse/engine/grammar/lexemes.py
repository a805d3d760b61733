"""Which lexemes of a grammar may take all they can without taking what belongs to their follower.

The characters of each lexeme become places, as in Glushkov's construction: which come first, which last, which after
which. Two places that one text reaches together, the one last in its lexeme, the other with a next place that shares a
character with what may follow the first lexeme: there the text has two readings, and the lexeme of the second, which
could go on, is split into its parts. Two lexemes may begin together where both can follow a third, and counts are
widened to any number; both can only split too much.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from bakehouse.engine.grammar import charset
from bakehouse.engine.grammar.charset import Chars
from bakehouse.engine.grammar.pattern import EMPTY, Choice, Class, Name, Node, Repeat, Sequence, names

#: More pairs of places than this, and all lexemes are split instead of looking further; so many pairs are looked at.
MAX_PAIRS, MAX_LOOKS = 200_000, 1_000_000
#: Which member may follow which, and which begin and end a rule: so many are kept at one time, and so many times one is
#: noted, before a grammar is too large. A repeated choice of 1,200 has 1,440,000.
MAX_LINKS, MAX_NOTES = 1_500_000, 20_000_000


#: Ranges of characters that take as long as one look.
RANGES = 8


class TooLarge(Exception):
    """Too many members of the grammar may follow each other to look at all of them."""


def is_lexeme(node: Node) -> bool:
    """Whether *node* may be one lexeme: it names no rule, and is not empty."""
    return node != EMPTY and not names(node)


def to_split(rules: Mapping[str, Node]) -> set[Node]:
    """The nodes that must not be one lexeme. *rules*: the start rule under "" and those that are named."""
    split: set[Node] = set()
    spent = _Spent()
    while new := _Round(rules, split, spent).conflicts():
        split |= new
    return split


class _Enough(Exception):
    """So much was looked at that the rest is split unseen."""


@dataclass(slots=True)
class _Spent:
    """Work of all rounds together. A look at two characters counts once, at large classes more often."""

    notes: int = 0
    looks: int = 0

    def note(self, count: int) -> None:
        self.notes += count
        if self.notes > MAX_NOTES:
            raise TooLarge

    def look(self, count: int) -> None:
        self.looks += count
        if self.looks > MAX_LOOKS:
            raise _Enough


@dataclass(slots=True)
class _Ends:
    """What a node may be: empty, and which members come first and last in it."""

    empty: bool = True
    first: set[int] = field(default_factory=set)
    last: set[int] = field(default_factory=set)


class _Members:
    """The members of a node (places of a lexeme, or lexemes of a rule) and which may directly follow which."""

    def __init__(self, spent: _Spent) -> None:
        self.follow: dict[int, set[int]] = {}
        self.links = 0
        self.spent = spent

    def ends(self, node: Node) -> _Ends:
        match node:
            case Sequence(parts):
                ends = _Ends()
                for part in parts:
                    ends = self._joined(ends, self.member(part))
                return ends
            case Choice(options):
                all_ends = [self.member(option) for option in options]
                self.spent.note(sum(len(e.first) + len(e.last) for e in all_ends))
                first = {m for ends in all_ends for m in ends.first}
                return _Ends(any(e.empty for e in all_ends), first, {m for ends in all_ends for m in ends.last})
            case Repeat(inner, low, high):
                ends = self.member(inner)
                if high is None or high > 1:
                    self._link(ends.last, ends.first)
                return _Ends(ends.empty or low == 0, ends.first, ends.last)
            case _:
                raise TypeError(f"{node} is no compound")

    def member(self, node: Node) -> _Ends:
        return self.ends(node)

    def _joined(self, left: _Ends, right: _Ends) -> _Ends:
        self._link(left.last, right.first)
        first = left.first | right.first if left.empty else left.first
        last = left.last | right.last if right.empty else right.last
        return _Ends(left.empty and right.empty, first, last)

    def _link(self, before: set[int], after: set[int]) -> None:
        self.spent.note(len(before) * len(after))
        for member in before:
            following = self.follow.setdefault(member, set())
            self.links -= len(following)
            following.update(after)
            self.links += len(following)
            if self.links > MAX_LINKS:
                raise TooLarge


class _Places(_Members):
    """The places of all lexemes, each one character."""

    def __init__(self, spent: _Spent) -> None:
        super().__init__(spent)
        self.chars: list[Chars] = []

    def member(self, node: Node) -> _Ends:
        if not isinstance(node, Class):
            return self.ends(node)
        self.chars.append(node.chars)
        place = {len(self.chars) - 1}
        return _Ends(False, place, place)

    def next(self, place: int) -> set[int]:
        return self.follow.get(place, set())

    def share(self, left: int, right: int) -> bool:
        return self.overlap(self.chars[left], self.chars[right])

    def overlap(self, left: Chars, right: Chars) -> bool:
        self.spent.look((len(left) + len(right)) // RANGES)
        return charset.overlap(left, right)

    def union(self, places: set[int]) -> Chars:
        """The characters of all of them."""
        ranges = [span for place in places for span in self.chars[place]]
        self.spent.look(len(ranges) // RANGES)
        return charset.of(ranges)


class _Round(_Members):
    """The grammar with some nodes split: its lexemes, and which may follow which."""

    def __init__(self, rules: Mapping[str, Node], split: set[Node], spent: _Spent) -> None:
        super().__init__(spent)
        self.split = split
        self.rules = {name: _Ends(empty=False) for name in rules}
        self.numbers: dict[Node, int] = {}
        self.places = _Places(spent)
        self.lexemes: list[_Ends] = []
        while self._again(rules):
            pass

    def _again(self, rules: Mapping[str, Node]) -> bool:
        """One more look at all rules; whether it found anything new."""
        before = [(e.empty, len(e.first), len(e.last)) for e in self.rules.values()]
        links = self.links
        for name, node in rules.items():
            found = self.member(node)
            self.spent.note(len(found.first) + len(found.last))
            self.rules[name] = _Ends(found.empty, set(found.first), set(found.last))
        if sum(len(e.first) + len(e.last) for e in self.rules.values()) > MAX_LINKS:
            raise TooLarge
        after = [(e.empty, len(e.first), len(e.last)) for e in self.rules.values()]
        return before != after or links != self.links

    def member(self, node: Node) -> _Ends:
        if isinstance(node, Name):
            return self.rules[node.name]
        if not is_lexeme(node) or (node in self.split and not isinstance(node, Class)):
            return self.ends(node)
        number = self.numbers.setdefault(node, len(self.numbers))
        if number == len(self.lexemes):
            self.lexemes.append(self.places.member(node))
        return _Ends(self.lexemes[number].empty, {number}, {number})

    def conflicts(self) -> set[Node]:
        nodes = list(self.numbers)
        if self._too_many():
            return {node for node in nodes if not isinstance(node, Class)}
        try:
            return self._found(nodes)
        except _Enough:
            return _compounds(nodes)

    def _found(self, nodes: list[Node]) -> set[Node]:
        places, owner = self.places, self._owners()
        after = [
            places.union({p for f in self.follow.get(n, ()) for p in self.lexemes[f].first}) for n in range(len(nodes))
        ]
        next_: dict[int, Chars] = {}
        last = {place for lexeme in self.lexemes for place in lexeme.last}
        seen = {
            (a, b)
            for one, other in self._beginning_together()
            for a in self.lexemes[one].first
            for b in self.lexemes[other].first
            if places.share(a, b)
        }
        work = list(seen)
        found: set[Node] = set()
        for here, there in work:
            places.spent.look(len(places.next(here)) * len(places.next(there)) + 1)
            if here in last:
                if there not in next_:
                    next_[there] = places.union(places.next(there))
                if places.overlap(next_[there], after[owner[here]]):
                    found.add(nodes[owner[there]])
            for pair in ((a, b) for a in places.next(here) for b in places.next(there)):
                if pair not in seen and places.share(*pair):
                    seen.add(pair)
                    work.append(pair)
            if len(seen) > MAX_PAIRS:
                return {node for node in nodes if not isinstance(node, Class)}
        return found

    def _beginning_together(self) -> set[tuple[int, int]]:
        groups = [self.rules[""].first, *self.follow.values()]
        return {(one, other) for group in groups for one in group for other in group}

    def _too_many(self) -> bool:
        groups = [self.rules[""].first, *self.follow.values()]
        return sum(sum(len(self.lexemes[n].first) for n in group) ** 2 for group in groups) > MAX_PAIRS

    def _owners(self) -> list[int]:
        """To which lexeme each place belongs; they were numbered one lexeme after the other."""
        return [number for number, node in enumerate(self.numbers) for _ in range(_size(node))]


def _compounds(nodes: Iterable[Node]) -> set[Node]:
    """*nodes* and all within them but single characters, so that nothing is left to be looked at."""
    found: set[Node] = set()
    work = list(nodes)
    while work:
        node = work.pop()
        if isinstance(node, Class | Name) or node in found:
            continue
        found.add(node)
        match node:
            case Sequence(children) | Choice(children):
                work += children
            case Repeat(inner, _, _):
                work.append(inner)
    return found


def _size(node: Node) -> int:
    match node:
        case Sequence(children) | Choice(children):
            return sum(map(_size, children))
        case Repeat(inner, _, _):
            return _size(inner)
        case _:
            return 1
