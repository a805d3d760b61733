"""A program whose types a checker is to see; it is not run. `test_types` has it checked."""

from __future__ import annotations

import asyncio
from typing import assert_type

from inferlet import (
    Adapter,
    Context,
    Decoder,
    Event,
    EventStream,
    ForwardPass,
    Grammar,
    Matcher,
    Model,
    Output,
    Sampler,
    TokenStream,
    aio,
    mcp,
    messaging,
    runtime,
    session,
)
from inferlet.content import ToolResult

GREEDY = Sampler.greedy()


def streams(ctx: Context, any_flag: bool) -> None:
    assert_type(ctx.generate(GREEDY), TokenStream)
    assert_type(ctx.generate(GREEDY, max_tokens=3, auto_flush=False, stop=["x"], logprobs=2), TokenStream)
    assert_type(ctx.generate(GREEDY, decode=True), EventStream)
    assert_type(ctx.generate(GREEDY, reasoning=True), EventStream)
    assert_type(ctx.generate(GREEDY, tool_use=True, logit_mask=Grammar.json()), EventStream)
    assert_type(ctx.generate(GREEDY, decode=any_flag), TokenStream | EventStream)
    assert_type(ctx.generate_text(GREEDY), str)
    for tokens in ctx.generate(GREEDY):
        assert_type(tokens, list[int])
    ctx.generate(GREEDY, stopp=["x"])  # type: ignore[call-overload]


def events(ctx: Context) -> None:
    for event in ctx.generate(GREEDY, decode=True):
        match event:
            case Event.Text(text=text):
                assert_type(text, str)
            case Event.ToolCall(name, arguments):
                assert_type((name, arguments), tuple[str, str])
            case Event.Done():
                break


def things(model: Model) -> None:
    ids, pieces = model.tokenizer().vocabs()
    assert_type((ids[0], pieces[0]), tuple[int, bytes])
    assert_type(Context.lookup(model, "x"), Context | None)
    assert_type(Adapter.lookup(model, "x"), Adapter | None)
    matcher = Matcher(Grammar.from_regex("a"), model.tokenizer())
    assert_type(list(matcher.next_token_logit_mask()), list[int])
    assert_type(Decoder(model).feed([1]).__class__.__name__, str)
    output = ForwardPass(model).input_tokens([1]).sampler([0], GREEDY).execute()
    if isinstance(output, Output.Tokens):
        assert_type(output.value, list[int])


def services() -> None:
    assert_type(session.receive(), str)
    assert_type(session.receive_file(), bytes)
    assert_type(runtime.spawn("a@1.0.0"), str)
    with messaging.subscribe("t") as topic:
        assert_type(next(iter(topic)), str)
    with mcp.connect("m") as tools:
        assert_type(tools.call_tool("t"), ToolResult)


async def both(ctx: aio.Context) -> None:
    assert_type(await asyncio.gather(ctx.generate_text(GREEDY), ctx.fork().generate_text(GREEDY)), tuple[str, str])
    async for tokens in await ctx.generate(GREEDY):
        assert_type(tokens, list[int])
    assert_type(await ctx.generate(GREEDY, decode=True).text(), str)
    assert_type(await aio.session.receive(), str)
