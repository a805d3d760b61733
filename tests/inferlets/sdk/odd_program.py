"""Asks for what cannot be, and for what only looks so; its result says what came of each. `test_odd` runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from inferlet import (
    Adapter,
    Context,
    Decoder,
    Event,
    ForwardPass,
    Grammar,
    Mask,
    Matcher,
    Model,
    Sampler,
    mcp,
    messaging,
    runtime,
    session,
)

GREEDY = Sampler.greedy()
HALF = "half \ud800"


class Word(str):
    """Text all the same."""


def odd() -> list[tuple[str, Callable[[], Any]]]:
    model = Model.load(runtime.models()[0])
    any_: Any = None
    tokenizer = model.tokenizer()
    ctx = Context(model)
    ctx.user("Hi")

    def begun() -> Context:
        return ctx.fork()

    def put(name: str, value: Any) -> None:
        setattr(ctx, name, value)

    return [
        # Not text
        ("user", lambda: ctx.user(5)),  # type: ignore[arg-type]
        ("user-none", lambda: ctx.user(any_)),
        ("user-half", lambda: ctx.user(HALF)),
        ("fill", lambda: ctx.fill(b"bytes")),  # type: ignore[arg-type]
        ("encode-half", lambda: tokenizer.encode(HALF)),
        ("name", lambda: Context(model, name=5)),  # type: ignore[arg-type]
        ("name-empty", lambda: Context(model, name="")),
        ("send", lambda: session.send(any_)),
        ("send-half", lambda: session.send(HALF)),
        ("send-true", lambda: session.send(True)),  # type: ignore[arg-type]
        ("push", lambda: messaging.push("t", {})),  # type: ignore[arg-type]
        ("subscribe", lambda: messaging.subscribe(any_)),
        ("lookup", lambda: Context.lookup(model, 5)),  # type: ignore[arg-type]
        ("load", lambda: Model.load(5)),  # type: ignore[arg-type]
        ("adapter", lambda: Adapter.create(model, any_)),
        ("spawn", lambda: runtime.spawn(any_)),
        ("spawn-numbers", lambda: runtime.spawn("a@1.0.0", [1])),  # type: ignore[list-item]
        ("spawn-name", lambda: runtime.spawn("not/a name")),
        ("connect", lambda: mcp.connect("nobody")),
        # No numbers
        ("cursor-negative", lambda: put("cursor", -1)),
        ("cursor-large", lambda: put("cursor", 2**40)),
        ("cursor-text", lambda: put("cursor", "a")),
        ("reserve", lambda: ctx.reserve_pages(1.0)),  # type: ignore[arg-type]
        ("commit", lambda: ctx.commit_pages([9])),
        ("flag", lambda: Decoder(model, reasoning=any_)),
        ("nan", lambda: begun().generate_text(Sampler.top_p(float("nan")))),
        ("no-ids", lambda: begun().generate_text(GREEDY, logit_mask=Mask.allowing([]))),
        ("ids-text", lambda: ctx.fill_tokens("abc")),  # type: ignore[arg-type]
        ("matcher", lambda: ForwardPass(model).logit_mask(Matcher(Grammar.json(), tokenizer))),  # type: ignore[arg-type]
        # As good as any
        ("ids-bytes", lambda: Context(model, fill=b"abcd").buffered_tokens),
        ("decode-bytes", lambda: tokenizer.decode(b"abcd")),
        ("nul", lambda: tokenizer.encode("a\0b")),
        ("word", lambda: session.send(Word("word"))),
        ("feed-bytes", lambda: Decoder(model).feed(b"ab") == Event.Text("ab")),
        ("runs", lambda: begun().generate(GREEDY, max_tokens=3, logit_mask=range(97, 99)).finish),
        ("indices", lambda: len(ForwardPass(model).input_tokens(b"abc").sampler(range(3), GREEDY).execute().results)),
        ("empty", lambda: (ctx.fill(""), ctx.fill_tokens([]), ctx.equip_tools([]))),
        ("still-fine", lambda: len(begun().generate(GREEDY, max_tokens=3).tokens())),
    ]


def main() -> dict[str, str]:
    found = {}
    for name, use in odd():
        try:
            found[name] = repr(use())
        except Exception as error:
            found[name] = f"{type(error).__name__}: {str(error).partition(':')[0]}"
    return found
