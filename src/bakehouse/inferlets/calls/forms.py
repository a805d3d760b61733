"""Requests of guests, which are JSON, as the engine's; and what the engine answers, as JSON.

A field that is not known is `BadRequest` naming it, as is one of another type. Null is the same as absent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from reprlib import repr as brief
from typing import Any, TypeVar

import orjson

from bakehouse.engine.errors import BadRequest
from bakehouse.engine.params import (
    Chunk,
    Decode,
    Distribution,
    Done,
    Embedding,
    Event,
    ForwardOutput,
    ForwardRequest,
    GenerateRequest,
    GrammarSpec,
    Penalties,
    PromptLookup,
    SampleAt,
    Sampler,
    Stop,
    Text,
    Thinking,
    ThinkingDone,
    TokenLogprobs,
    ToolCall,
    ToolCallStart,
)
from bakehouse.inferlets.calls.packing import little_endian, pack

T = TypeVar("T")

#: What a handle in a request stands for: `Guest` says it.
Resolve = Callable[[object], Any]


def read(field: str, text: str) -> Any:
    """The JSON in *text*."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadRequest.at(field, f"is no JSON: {error}") from None


def fields(field: str, value: object, known: Iterable[str]) -> dict[str, Any]:
    """The fields of a JSON object, without those that are null."""
    if not isinstance(value, dict):
        raise BadRequest.at(field, f"must be a JSON object, not {brief(value)}")
    names = tuple(known)
    for name in value:
        if name not in names:
            raise BadRequest.at(f"{field}.{name}", f"there is no such field; there are {', '.join(names)}")
    return {name: found for name, found in value.items() if found is not None}


def texts(field: str, text: str) -> list[str]:
    """A JSON list of texts."""
    found = read(field, text)
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise BadRequest.at(field, "must be a JSON list of texts")
    return found


def _flags(field: str, found: Mapping[str, Any], *names: str) -> None:
    for name in names:
        if name in found and not isinstance(found[name], bool):
            raise BadRequest.at(f"{field}.{name}", f"must be true or false, not {brief(found[name])}")


def _build(kind: type[T], field: str, value: object, known: Iterable[str]) -> T:
    """A value of `params`, whose own checks do the rest; it names a field without the one that it is in."""
    found = fields(field, value, known)
    try:
        return kind(**found)
    except TypeError as error:  # a field that must be there
        raise BadRequest.at(field, str(error).partition("() ")[2] or str(error)) from None


SAMPLER = ("kind", "temperature", "top_k", "top_p", "min_p", "seed", "entries")


def sampler(value: object, field: str = "sampler") -> Sampler:
    return _build(Sampler, field, value, SAMPLER)


def decode(value: object) -> Decode:
    found = fields("decode", value, ("text", "reasoning", "tool_use"))
    _flags("decode", found, *found)
    return Decode(**found)


def penalties(value: object) -> Penalties:
    found = fields("penalties", value, ("repetition", "frequency", "presence", "bias"))
    bias = found.get("bias")
    if isinstance(bias, list):
        found["bias"] = tuple(tuple(pair) if isinstance(pair, list) else pair for pair in bias)
    return Penalties(**found)


def grammar(value: object) -> GrammarSpec:
    return _build(GrammarSpec, "grammar", value, ("kind", "source"))


#: Fields of a generation that are values of their own.
_PARTS: dict[str, Callable[[object], Any]] = {
    "sampler": sampler,
    "stop": lambda value: _build(Stop, "stop", value, ("tokens", "strings")),
    "grammar": grammar,
    "penalties": penalties,
    "draft": lambda value: _build(PromptLookup, "draft", value, ("tokens", "longest", "shortest")),
    "decode": decode,
}
#: What handles stand for, by field: (of the request here, of the engine's).
_HANDLES = {"mask": "logit_mask", "logit_mask": "logit_mask", "matcher": "matcher", "adapter": "adapter"}

_GENERATE = (*_PARTS, "max_tokens", "mask", "matcher", "logprobs", "adapter", "zo_seed", "timeout", "whole")
_FORWARD = (
    "context",
    "tokens",
    "positions",
    "masks",
    "logit_mask",
    "samplers",
    "draft_tokens",
    "draft_positions",
    "speculative_output",
    "adapter",
    "zo_seed",
    "logprobs",
    "timeout",
)


def generate(context: int, text: str, resolve: Mapping[str, Resolve]) -> tuple[GenerateRequest, bool]:
    """The engine's request, and whether all chunks are wanted as one. *resolve*: what handles stand for, by field."""
    found = fields("request", read("request", text), _GENERATE)
    _flags("request", found, "whole")
    whole = found.pop("whole", False)
    for name, make in _PARTS.items():
        if name in found:
            found[name] = make(found[name])
    return GenerateRequest(context=context, **_resolved(found, resolve)), whole


def forward(text: str, resolve: Mapping[str, Resolve]) -> ForwardRequest:
    found = fields("request", read("request", text), _FORWARD)
    _flags("request", found, "speculative_output")
    if "context" in found:
        found["context"] = resolve["context"](found["context"])
    if "samplers" in found:
        found["samplers"] = _samplers(found["samplers"])
    return ForwardRequest(**_resolved(found, resolve))


def _resolved(found: dict[str, Any], resolve: Mapping[str, Resolve]) -> dict[str, Any]:
    return {
        _HANDLES.get(name, name): resolve[name](value) if name in _HANDLES else value for name, value in found.items()
    }


def _samplers(value: object) -> tuple[SampleAt, ...]:
    if not isinstance(value, list):
        raise BadRequest.at("samplers", f"must be a list, not {brief(value)}")
    made = []
    for place, item in enumerate(value):
        name = f"samplers[{place}]"
        found = fields(name, item, ("indices", "sampler"))
        if found.keys() != {"indices", "sampler"}:
            raise BadRequest.at(name, "needs indices and sampler")
        made.append(SampleAt(found["indices"], sampler(found["sampler"], f"{name}.sampler")))
    return tuple(made)


# Answers


def event(value: Event) -> list[str]:
    """An event as a list: its kind, then its texts."""
    match value:
        case Text(text):
            return ["text", text]
        case Thinking(text):
            return ["thinking", text]
        case ThinkingDone(text):
            return ["thinking_done", text]
        case ToolCallStart():
            return ["tool_call_start"]
        case ToolCall(name, arguments):
            return ["tool_call", name, arguments]
        case Done(text):
            return ["done", text]


def events(values: Iterable[Event]) -> str:
    return orjson.dumps([event(value) for value in values]).decode()


def item(chunks: Sequence[Chunk]) -> str:
    """*chunks* as one item of a generation; texts that follow each other are one."""
    told: list[list[str]] = []
    for value in (event(value) for chunk in chunks for value in chunk.events):
        if told and told[-1][0] == value[0] and value[0] in ("text", "thinking") and told[-1][1]:
            told[-1][1] += value[1]
        else:
            told.append(value)
    body = {
        "tokens": [token for chunk in chunks for token in chunk.tokens],
        "events": told,
        "logprobs": _logprobs(entry for chunk in chunks for entry in chunk.logprobs),
        "finish": chunks[-1].finish,
    }
    return orjson.dumps(body).decode()


def _logprobs(entries: Iterable[TokenLogprobs]) -> list[tuple[int, float, tuple[tuple[int, float], ...]]]:
    return [(entry.token, entry.logprob, entry.top) for entry in entries]


def output(value: ForwardOutput) -> str:
    """A line of JSON, then in the order of its results: embeddings, and of distributions the ids, then the shares."""
    results: list[dict[str, int]] = []
    bulk: list[bytes] = []
    for result in value.results:
        match result:
            case Embedding(data):
                results.append({"embedding": len(data)})
                bulk.append(data)
            case Distribution(ids, probs):
                results.append({"distribution": len(ids)})
                bulk += [little_endian(ids), little_endian(probs)]
            case int():
                results.append({"token": result})
    body = {
        "results": results,
        "accepted": value.accepted,
        "next_drafts": value.next_drafts,
        "next_positions": value.next_positions,
        "logprobs": _logprobs(value.logprobs),
    }
    return orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE).decode() + pack(b"".join(bulk))
