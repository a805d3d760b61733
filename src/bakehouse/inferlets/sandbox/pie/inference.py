"""Forward passes by hand, grammars and matchers."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from bakehouse.inferlets.calls.base import check_size
from bakehouse.inferlets.sandbox.linking import Interface
from bakehouse.inferlets.sandbox.pie.adapters import TRAINING, Adapter
from bakehouse.inferlets.sandbox.pie.base import (
    PARSER,
    Future,
    Held,
    drop_future,
    drop_nothing,
    get,
    letting_go,
    packed,
    pollable,
    said,
    taken,
    unpacked,
)
from bakehouse.inferlets.sandbox.pie.contexts import Context
from bakehouse.inferlets.sandbox.pie.models import Model, any_model
from bakehouse.inferlets.sandbox.running import Running

#: Names of a sampler's numbers, by its case.
_SAMPLERS = {
    "multinomial": ("temperature", "seed"),
    "top-k": ("temperature", "top_k"),
    "top-p": ("temperature", "top_p"),
    "min-p": ("temperature", "min_p"),
    "top-k-top-p": ("temperature", "top_k", "top_p"),
    "dist": ("temperature", "entries"),
}


#: Bytes that a number takes here; and one in a result, where each is four characters.
_NUMBER, _WEIGHT = 40, 12


@dataclass(slots=True)
class Pass:
    """``once`` is what the next `execute` uses up, ``kept`` what it does not; both are fields of its request."""

    model: Model
    kept: dict[str, Any] = field(default_factory=dict)
    once: dict[str, Any] = field(default_factory=dict)
    mask: list[int] = field(default_factory=list)
    held: Held = field(default_factory=Held)
    context: Context | None = None

    def more(self, running: Running, name: str, values: list[Any]) -> None:
        self.hold(running, len(values))
        self.once.setdefault(name, []).extend(values)

    def hold(self, running: Running, numbers: int) -> None:
        """So many came. Raises `Refused`."""
        self.held.more(running, _NUMBER * numbers)


def _tokens(running: Running, one: Pass, tokens: list[int], positions: list[int]) -> None:
    one.more(running, "tokens", tokens)
    one.more(running, "positions", positions)


def _drafts(running: Running, one: Pass, tokens: list[int], positions: list[int]) -> None:
    one.more(running, "draft_tokens", tokens)
    one.more(running, "draft_positions", positions)


def _kept(name: str, value: Callable[[Any], Any]) -> Callable[[Running, Pass, Any], None]:
    def call(_: Running, one: Pass, given: Any) -> None:
        one.kept[name] = value(given)

    return call


def _context(_: Running, one: Pass, context: Context) -> None:
    one.context = context


def _handle(adapter: Adapter) -> int:
    return adapter.handle


def _attend(running: Running, one: Pass, masks: list[list[int]]) -> None:
    one.hold(running, sum(len(mask) + 2 for mask in masks))
    one.once["masks"] = masks


def _mask(running: Running, one: Pass, runs: list[int]) -> None:
    one.hold(running, len(runs))
    one.mask = runs


def _sampler(running: Running, one: Pass, indices: list[int], sampler: Any) -> None:
    case, numbers = (sampler, ()) if isinstance(sampler, str) else sampler
    found = dict(zip(_SAMPLERS.get(case, ()), numbers, strict=True))
    if found.get("seed") == 0:  # As if none was given.
        del found["seed"]
    one.hold(running, len(indices) + 8)
    one.more(running, "samplers", [{"indices": indices, "sampler": {"kind": case.replace("-", "_"), **found}}])


def _execute(running: Running, one: Pass) -> Future:
    request = {**one.kept, **one.once}
    if one.context is not None:
        request["context"] = one.context.mine(running)
    runs, one.once, one.mask = one.mask, {}, []
    one.held.nothing(running)
    for name in ("positions", "draft_positions"):
        request[name] = request.get(name) or None
    if not runs:
        return _started(running, one.model, request)
    mask = running.calls.grammars.create_mask(packed(runs))
    try:
        return _started(running, one.model, {**request, "logit_mask": mask})
    finally:
        running.calls.grammars.release_mask(mask)


def _started(running: Running, model: Model, request: dict[str, Any]) -> Future:
    return Future(running.calls.passes.forward(model.handle, json.dumps(request)), output, _WEIGHT)


def output(text: str) -> Any:
    """From the form in which `Calls` gives it: a line of JSON, then what it announces."""
    line, _, rest = text.partition("\n")
    head, data = json.loads(line), rest.encode("latin-1")
    if head["accepted"]:
        return "tokens-with-speculation", (head["accepted"], head["next_drafts"], head["next_positions"])
    found: dict[str, list[Any]] = {"token": [], "embedding": [], "distribution": []}
    at = 0
    for row in head["results"]:
        ((kind, size),) = row.items()
        if kind == "token":
            found[kind].append(size)
            continue
        end = at + (size if kind == "embedding" else 8 * size)
        found[kind].append(data[at:end] if kind == "embedding" else _distribution(data[at:end]))
        at = end
    cases = {"token": "tokens", "embedding": "embeddings", "distribution": "distributions"}
    return next(((cases[kind], values) for kind, values in found.items() if values), "none")


def _distribution(data: bytes) -> tuple[list[int], list[float]]:
    half = len(data) // 2
    return array("I", data[:half]).tolist(), array("f", data[half:]).tolist()


@dataclass(frozen=True, slots=True)
class Grammar:
    """What a matcher is made from: which model it is for, only the matcher knows."""

    kind: str
    source: str


@dataclass(frozen=True, slots=True)
class Matcher:
    handle: int


def _grammar(kind: str) -> Callable[[Running, str], Grammar]:
    def make(running: Running, source: str) -> Grammar:
        check_size("message", source, running.limits.message, "source")
        model = any_model(running)
        if model is not None:  # What is wrong with it is to be said here, and a matcher is how one finds out.
            _let_go(running, _compiled(running, model, kind, source))
        return Grammar(kind, source)

    return make


def _compiled(running: Running, model: Model, kind: str, source: str) -> Matcher:
    return Matcher(int(taken(running, running.calls.grammars.create(model.handle, kind, source))))


def _matcher(running: Running, grammar: Grammar, model: Model) -> Matcher:
    return _compiled(running, model, grammar.kind, grammar.source)


def _let_go(running: Running, matcher: Matcher) -> None:
    running.calls.grammars.release(matcher.handle)


def _accept(running: Running, matcher: Matcher, tokens: list[int]) -> None:
    running.calls.grammars.accept(matcher.handle, packed(tokens))


def _next_mask(running: Running, matcher: Matcher) -> list[int]:
    mask = running.calls.grammars.next_mask(matcher.handle)
    try:
        return unpacked(running.calls.grammars.read_mask(mask))
    finally:
        running.calls.grammars.release_mask(mask)


def _terminated(running: Running, matcher: Matcher) -> bool:
    return bool(running.calls.grammars.terminated(matcher.handle))


def _reset(running: Running, matcher: Matcher) -> None:
    running.calls.grammars.reset(matcher.handle)


_pass, _them, _made = "borrow<forward-pass>", "list<u32>, list<u32>", "result<own<grammar>, error>"
_TABLE: dict[str, Callable[..., Any]] = {
    "[constructor]forward-pass(borrow<model>) -> own<forward-pass>": lambda _, model: Pass(model),
    f"[method]forward-pass.context({_pass}, borrow<context>)": _context,
    f"[method]forward-pass.input-tokens({_pass}, {_them})": _tokens,
    f"[method]forward-pass.input-speculative-tokens({_pass}, {_them})": _drafts,
    f"[method]forward-pass.output-speculative-tokens({_pass}, bool)": _kept("speculative_output", bool),
    f"[method]forward-pass.attention-mask({_pass}, list<list<u32>>)": _attend,
    f"[method]forward-pass.logit-mask({_pass}, list<u32>)": _mask,
    f"[method]forward-pass.sampler({_pass}, list<u32>, sampler)": _sampler,
    f"[method]forward-pass.adapter({_pass}, borrow<adapter>)": _kept("adapter", _handle),
    f"[method]forward-pass.execute({_pass}) -> result<own<future-output>, error>": _execute,
    "[method]future-output.pollable(borrow<future-output>) -> own<pollable>": pollable,
    "[method]future-output.get(borrow<future-output>) -> option<output>": get,
    f"[static]grammar.from-json-schema(string) -> {_made}": _grammar("json_schema"),
    f"[static]grammar.from-regex(string) -> {_made}": _grammar("regex"),
    f"[static]grammar.from-ebnf(string) -> {_made}": _grammar("ebnf"),
    "[static]grammar.json() -> own<grammar>": lambda _: Grammar("json", ""),
    "[constructor]matcher(borrow<grammar>, borrow<tokenizer>) -> own<matcher>": _matcher,
    "[method]matcher.accept-tokens(borrow<matcher>, list<u32>) -> result<_, error>": _accept,
    "[method]matcher.next-token-logit-mask(borrow<matcher>) -> list<u32>": _next_mask,
    "[method]matcher.is-terminated(borrow<matcher>) -> bool": _terminated,
    "[method]matcher.reset(borrow<matcher>)": _reset,
}
_ZO: dict[str, Callable[..., Any]] = {f"adapter-seed({_pass}, s64)": _kept("zo_seed", int)}


def interfaces() -> Iterator[Interface]:
    resources = {
        "forward-pass": lambda running, one: one.held.nothing(running),
        "future-output": drop_future,
        "grammar": drop_nothing,
        "matcher": letting_go(_let_go),
    }
    yield Interface("pie:core/inference@0.2.0", said, PARSER, _TABLE, resources)
    yield Interface("pie:zo/zo@0.2.0", said, PARSER, _ZO | TRAINING)
