"""Rules as a grammar for llguidance, in its variant of Lark, so that it accepts exactly what the rules say.

llguidance splits a text into lexemes before it parses, and a lexeme takes all it can: ``/[a-z]+/ "x"`` would never
reach its x. So what is regular becomes one lexeme wherever that is safe: no text of it can go on both as the lexeme (or
as another one that began with it) and as what follows. Where it is not safe the lexeme is split into characters, which
is slower and always right. A grammar without recursion is one regular expression.
"""

from __future__ import annotations

from bakehouse.engine.errors import BadRequest
from bakehouse.engine.grammar import pattern
from bakehouse.engine.grammar.lexemes import TooLarge, is_lexeme, to_split
from bakehouse.engine.grammar.pattern import EMPTY, Choice, Class, Name, Node, Repeat, Sequence, names

#: A rule that would be written out to more places than this stays a rule of its own.
MAX_INLINED = 4_000
MAX_RULES = 2_000


def written(rules: dict[str, Node], root: str, field: str) -> str:
    """The grammar's text. Raises `BadRequest` for a rule that can never end and for one that is too large."""
    rules = _reached(rules, root)
    if len(rules) > MAX_RULES:
        raise BadRequest.at(field, f"a grammar may use {MAX_RULES} rules, this one uses {len(rules)}")
    _check_ends(rules, field)
    flat = _Flattened(rules)
    start = Name(root) if root in flat.kept else flat.body(root)
    reached: dict[str, Node] = {}
    while new := [name for name in flat.kept if name not in reached]:
        reached.update((name, flat.body(name)) for name in new)
    for node in (start, *reached.values()):
        if pattern.places(node) > pattern.MAX_PLACES:
            raise BadRequest.at(
                field, f"the grammar is too large with its counts written out; {pattern.MAX_PLACES} places"
            )
    try:
        return _Writer(start, reached).text()
    except TooLarge:
        raise BadRequest.at(field, "the grammar is too large: too many of its parts may follow each other") from None


def _check_ends(rules: dict[str, Node], field: str) -> None:
    """Every rule must have a finite text, or a generation that enters it never finishes."""
    users: dict[str, set[str]] = {name: set() for name in rules}
    for name, node in rules.items():
        for used in names(node):
            users[used].add(name)
    ending: set[str] = set()
    work = list(rules)
    while work:
        name = work.pop()
        if name not in ending and _ends(rules[name], ending):
            ending.add(name)
            work += users[name]
    for name in rules:
        if name not in ending:
            raise BadRequest.at(field, f"rule {name!r} can never end: each of its alternatives needs itself")


def _ends(node: Node, ending: set[str]) -> bool:
    match node:
        case Name(name):
            return name in ending
        case Sequence(parts):
            return all(_ends(part, ending) for part in parts)
        case Choice(options):
            return any(_ends(option, ending) for option in options)
        case Repeat(inner, low, _):
            return low == 0 or _ends(inner, ending)
        case Class():
            return True


def _reached(rules: dict[str, Node], root: str) -> dict[str, Node]:
    found = {root: rules[root]}
    work = [root]
    while work:
        new = [name for name in dict.fromkeys(names(rules[work.pop()])) if name not in found]
        found.update((name, rules[name]) for name in new)
        work += new
    return found


def _recurring(rules: dict[str, Node]) -> set[str]:
    """The rules that reach themselves: those of strongly connected parts, by Tarjan's algorithm without recursion."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    open_: dict[str, None] = {}
    found: set[str] = set()
    for root, node in rules.items():
        path = [(root, iter(names(node)))] if root not in number else []
        while path:
            name, below = path[-1]
            if name not in number:
                number[name] = lowest[name] = len(number)
                open_[name] = None
            following = next((other for other in below if other not in number or other in open_), None)
            if following is not None and following not in number:
                path.append((following, iter(names(rules[following]))))
                continue
            if following is not None:
                lowest[name] = min(lowest[name], number[following])
                found.update([name] if following == name else [])
                continue
            path.pop()
            if path:
                lowest[path[-1][0]] = min(lowest[path[-1][0]], lowest[name])
            if lowest[name] == number[name]:
                part = [other for other in open_ if number[other] >= number[name]]
                found.update(part if len(part) > 1 else [])
                for other in part:
                    del open_[other]
    return found


class _Flattened:
    """Rules with the names of those that do not recur replaced by what they stand for. ``kept``: the others."""

    def __init__(self, rules: dict[str, Node]) -> None:
        self.rules = rules
        self.kept = dict.fromkeys(sorted(_recurring(rules), key=list(rules).index))
        self._done: dict[str, Node] = {}

    def body(self, name: str) -> Node:
        return self.node(self.rules[name])

    def node(self, node: Node) -> Node:
        match node:
            case Name(name) if name not in self.kept:
                return self._inlined(name)
            case Sequence(parts):
                return pattern.sequence([self.node(part) for part in parts])
            case Choice(options):
                return pattern.choice([self.node(option) for option in options])
            case Repeat(inner, low, high):
                return Repeat(self.node(inner), low, high)
            case _:
                return node

    def _inlined(self, name: str) -> Node:
        if name not in self._done:
            inlined = self.node(self.rules[name])
            if pattern.places(inlined) > MAX_INLINED:
                self.kept[name] = None
                inlined = Name(name)
            self._done[name] = inlined
        return self._done[name]


class _Writer:
    """Texts of rules; lexemes are numbered as they come, equal ones once."""

    def __init__(self, start: Node, rules: dict[str, Node]) -> None:
        self.rules = {"": start, **rules}
        self.labels = {name: f"r{index}" for index, name in enumerate(self.rules)}
        self.labels[""] = "start"
        self.numbers: dict[Node, int] = {}

    def text(self) -> str:
        split = to_split({name: _grouped(node) for name, node in self.rules.items()})
        lines = [f"{self.labels[name]}: {self.rule(_grouped(node), split)}" for name, node in self.rules.items()]
        lines += [f"T{number}: /{pattern.rust(node)}/" for node, number in self.numbers.items()]
        return "\n".join(lines) + "\n"

    def rule(self, node: Node, split: set[Node]) -> str:
        if is_lexeme(node) and node not in split:
            return self.lexeme(node)
        match node:
            case Name(name):
                return self.labels[name]
            case Sequence(parts):
                return " ".join(self.inside(part, split) for part in parts) or '""'
            case Choice(options):
                return " | ".join(self.rule(option, split) for option in options)
            case Repeat(inner, low, high):
                return f"({self.rule(inner, split)}){pattern.count(low, high)}"
            case Class():
                return self.lexeme(node)

    def inside(self, node: Node, split: set[Node]) -> str:
        text = self.rule(node, split)
        return f"({text})" if isinstance(node, Choice) and (node in split or not is_lexeme(node)) else text

    def lexeme(self, node: Node) -> str:
        number = self.numbers.setdefault(node, len(self.numbers))
        return f"T{number}"


def _grouped(node: Node) -> Node:
    """*node* with neighbours that name no rule put together, so that each group can be one lexeme."""
    if is_lexeme(node):
        return node
    match node:
        case Sequence(parts):
            return pattern.sequence(_runs([_grouped(part) for part in parts]))
        case Choice(options):
            lexemes = [option for option in options if is_lexeme(option)]
            others = [_grouped(option) for option in options if not is_lexeme(option)]
            return pattern.choice(([pattern.choice(lexemes)] if lexemes else []) + others)
        case Repeat(inner, low, high):
            return Repeat(_grouped(inner), low, high)
        case _:
            return node


def _runs(parts: list[Node]) -> list[Node]:
    """*parts* with neighbours that may be lexemes joined, and without empty ones."""
    runs: list[Node] = []
    run: list[Node] = []
    for part in [*parts, EMPTY]:
        if is_lexeme(part):
            run.append(part)
            continue
        if run:
            runs.append(pattern.sequence(run))
            run = []
        if part != EMPTY:
            runs.append(part)
    return runs
