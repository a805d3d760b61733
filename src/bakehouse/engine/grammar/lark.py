"""Rules as a grammar for llguidance, in its variant of Lark, so that it accepts exactly what the rules say.

llguidance splits a text into lexemes before it parses, and a lexeme takes all it can: ``/[a-z]+/ "x"`` would never
reach its x. So what is regular becomes one lexeme wherever that is safe: no text of it can go on both as the lexeme (or
as another one that began with it) and as what follows. Where it is not safe the lexeme is split into characters, which
is slower and always right. A grammar without recursion is one regular expression.
"""

from __future__ import annotations

from bakehouse.engine.errors import BadRequest
from bakehouse.engine.grammar import pattern
from bakehouse.engine.grammar.lexemes import is_lexeme, to_split
from bakehouse.engine.grammar.pattern import EMPTY, Choice, Class, Name, Node, Repeat, Sequence, names

#: A rule that would be written out to more places than this stays a rule of its own.
MAX_INLINED = 4_000


def written(rules: dict[str, Node], root: str, field: str) -> str:
    """The grammar's text. Raises `BadRequest` for a rule that can never end and for one that is too large."""
    _check_ends(rules, root, field)
    flat = _Flattened({name: rules[name] for name in _reached(rules, root)})
    start = Name(root) if root in flat.kept else flat.body(root)
    reached = {name: flat.body(name) for name in flat.kept}
    for node in (start, *reached.values()):
        if pattern.places(node) > pattern.MAX_PLACES:
            raise BadRequest.at(
                field, f"the grammar is too large with its counts written out; {pattern.MAX_PLACES} places"
            )
    return _Writer(start, reached).text()


def _check_ends(rules: dict[str, Node], root: str, field: str) -> None:
    """Every rule that *root* reaches must have a finite text, or a generation that enters it never finishes."""
    ending: set[str] = set()
    while new := {name for name, node in rules.items() if name not in ending and _ends(node, ending)}:
        ending |= new
    for name in _reached(rules, root):
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


def _reached(rules: dict[str, Node], root: str) -> list[str]:
    found = [root]
    for name in found:
        found += [other for other in dict.fromkeys(names(rules[name])) if other not in found]
    return found


class _Flattened:
    """Rules with the names of those that do not recur replaced by what they stand for. ``kept``: the others."""

    def __init__(self, rules: dict[str, Node]) -> None:
        self.rules = rules
        self.kept = [name for name in rules if name in self._below(name)]
        self._done: dict[str, Node] = {}

    def _below(self, name: str) -> set[str]:
        found: list[str] = list(dict.fromkeys(names(self.rules[name])))
        for other in found:
            found += [n for n in dict.fromkeys(names(self.rules[other])) if n not in found]
        return set(found)

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
                self.kept.append(name)
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
