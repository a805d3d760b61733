"""Programs that return all that they saw, so that what two faces gave can be compared."""

from __future__ import annotations

import json
from array import array
from typing import Any

from bakehouse.engine.adapters.base import ZoParams
from bakehouse.engine.errors import EngineError
from bakehouse.engine.face import AsyncSession
from bakehouse.engine.params import (
    GREEDY,
    Chunk,
    Decode,
    ForwardRequest,
    GenerateRequest,
    GrammarSpec,
    Penalties,
    PromptLookup,
    SampleAt,
    Sampler,
    SamplerKind,
    Stop,
)

NO_STOP = Stop(tokens=())


async def chunks(session: AsyncSession, context: int, **options: Any) -> list[Chunk]:
    return [chunk async for chunk in await session.generate(GenerateRequest(context=context, **options))]


async def prompt(session: AsyncSession, text: str = "Bread is") -> int:
    context = await session.create_context()
    await session.append_tokens(context, await session.encode(text))
    return context


async def texts(session: AsyncSession) -> Any:
    ids = await session.encode("Zoë 🍞<|im_end|>")
    decoded = await session.decode(ids)
    return (
        session.model,
        ids,
        decoded,
        await session.vocabulary(),
        await session.special_tokens(),
        await session.split_regex(),
    )


async def chat(session: AsyncSession) -> Any:
    context = await session.create_context()
    await session.system(context, "Be brief.")
    await session.user(context, "What is 2 + 2?")
    await session.equip_tools(context, [json.dumps({"name": "add", "parameters": {"type": "object"}})])
    await session.cue(context)
    before = await session.context_state(context)
    first = await chunks(
        session, context, sampler=Sampler(SamplerKind.TOP_P, 0.9, top_p=0.9, seed=3), max_tokens=40, decode=Decode()
    )
    await session.seal(context)
    await session.answer_tool(context, "add", "4")
    await session.assistant(context, "So 4.")
    return before, first, await session.context_state(context)


async def sampled(session: AsyncSession) -> Any:
    context = await prompt(session)
    seeded = await chunks(
        session,
        context,
        sampler=Sampler(SamplerKind.TOP_K_TOP_P, 0.8, top_k=20, top_p=0.9, seed=2**64 - 1),
        penalties=Penalties(repetition=1.2, frequency=0.1, presence=0.1, bias=((101, 2.0),)),
        max_tokens=24,
        logprobs=3,
        stop=NO_STOP,
    )
    drafted = await chunks(session, context, sampler=GREEDY, max_tokens=24, draft=PromptLookup(), stop=NO_STOP)
    ended = await chunks(session, context, sampler=GREEDY, max_tokens=300, stop=Stop(tokens=(), strings=("e ", "a")))
    return seeded, _tokens(drafted), ended, await session.context_state(context)


async def passes(session: AsyncSession) -> Any:
    free = await session.forward(
        ForwardRequest(
            tokens=(66, 114, 101),
            masks=((0, 1), (0, 2), (0, 1, 1, 1)),
            samplers=(
                SampleAt((0, 2), Sampler(SamplerKind.EMBEDDING)),
                SampleAt((1,), Sampler(SamplerKind.DIST, entries=5)),
                SampleAt((2,), Sampler(SamplerKind.DIST)),
                SampleAt((2,), GREEDY),
            ),
            logit_mask=(97, 26),
            logprobs=2,
        )
    )
    context = await prompt(session)
    ids = (await session.context_state(context)).buffered
    drafted = await session.forward(
        ForwardRequest(context=context, tokens=ids, samplers=(SampleAt((len(ids) - 1,), GREEDY),), draft_tokens=(1, 2))
    )
    return [_plain(it) for it in free.results], free.logprobs, drafted, await session.context_state(context)


async def pages(session: AsyncSession) -> Any:
    context = await session.create_context("book")
    await session.set_buffer(context, list(range(60, 100)))
    await session.reserve_pages(context, 3)
    await session.flush(context)
    seen = [await session.context_state(context)]
    child = await session.fork_context(context)
    await session.set_cursor(child, (await session.context_state(child)).cursor - 2)
    seen.append(await session.context_state(child))
    await session.release_pages(child, 1)
    seen.append(await session.context_state(child))
    return seen, await session.lookup_context("book") == context, await session.lookup_context("nothing")


async def grammars(session: AsyncSession) -> Any:
    matcher = await session.create_matcher(GrammarSpec("regex", "[0-9]{2,4}"))
    seen: list[Any] = [await session.matcher_mask(matcher), await session.matcher_terminated(matcher)]
    await session.matcher_accept(matcher, [49, 50])
    seen.append(await session.matcher_mask(matcher))
    await session.matcher_accept(matcher, [session.model.stop_tokens[0]])
    seen.append(await session.matcher_terminated(matcher))
    await session.matcher_reset(matcher)
    context = await prompt(session)
    seen.append(await chunks(session, context, sampler=Sampler(seed=5), matcher=matcher, max_tokens=20))
    await session.release_matcher(matcher)
    schema = json.dumps({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]})
    found = await chunks(
        session, context, sampler=Sampler(seed=6), grammar=GrammarSpec("json_schema", schema), max_tokens=200
    )
    seen.append(json.loads(await session.decode(_tokens(found))))
    return seen


async def decoders(session: AsyncSession) -> Any:
    decoder = await session.create_decoder(Decode(reasoning=True, tool_use=True))
    text = 'So <think>hm</think>: <tool_call>{"name": "weigh", "arguments": {"kg": 2}}</tool_call> done'
    seen: list[Any] = [await session.decoder_feed(decoder, [token]) for token in await session.encode(text)]
    seen.append(await session.decoder_finish(decoder))
    await session.decoder_feed(decoder, [97])
    await session.decoder_reset(decoder)
    seen.append(await session.decoder_finish(decoder))
    await session.release_decoder(decoder)
    matcher = await session.create_tool_matcher([json.dumps({"name": "weigh", "parameters": {"type": "object"}})])
    seen.append(await session.matcher_mask(matcher))
    return seen


async def adapters(session: AsyncSession) -> Any:
    first = await session.create_adapter("first")
    seen: list[Any] = [await session.lock_adapter(first)]
    await session.initialize_zo(first, ZoParams(rank=2, alpha=4.0, population=4, mu_fraction=0.5, sigma=0.5))
    await session.update_zo(first, [1.0, 0.5, -1.0, 0.0], [11, 12, 13, 14], 1.0)
    context = await prompt(session)
    seen.append(await chunks(session, context, sampler=GREEDY, adapter=first, zo_seed=-5, max_tokens=8, stop=NO_STOP))
    await session.unlock_adapter(first)
    second = await session.clone_adapter(first, "second")
    seen.append(await session.lookup_adapter("second") == second)
    for adapter in (first, second):
        await session.remove_adapter(adapter)
    seen.append(await session.lookup_adapter("first"))
    return seen


async def errors(session: AsyncSession) -> Any:
    """Code, text and field of what is refused."""
    context = await prompt(session)
    held = await session.create_context("held")
    calls = (
        session.context_state(9_999),
        session.fork_context(context, "held"),
        session.forward(ForwardRequest(tokens=(10**6,))),
        session.create_matcher(GrammarSpec("regex", "(")),
        session.generate(GenerateRequest(context=context, grammar=GrammarSpec("json_schema", "{"))),
        session.generate(GenerateRequest(context=await session.create_context())),
        session.matcher_mask(77),
        session.commit_pages(context, [0]),
        session.load_adapter(12345, "/nowhere"),
    )
    seen = []
    for call in calls:
        try:
            await call
            seen.append(None)
        except EngineError as error:
            seen.append((error.code, error.detail.replace(str(context), "N").replace(str(held), "N"), error.field))
    return seen


PROGRAMS = (texts, chat, sampled, passes, pages, grammars, decoders, adapters, errors)


def _tokens(found: list[Chunk]) -> list[int]:
    return [token for chunk in found for token in chunk.tokens]


def _plain(result: Any) -> Any:
    """Arrays compare by value only when both are arrays of one kind; lists show what differs."""
    if hasattr(result, "ids"):
        return array("I", result.ids).tolist(), array("f", result.probs).tolist()
    return result
