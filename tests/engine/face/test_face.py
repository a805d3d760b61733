"""The contract of the face, on both of its forms."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from bakehouse.engine import brle
from bakehouse.engine.errors import BadRequest, Cancelled, DeadlineExceeded, NotFound
from bakehouse.engine.face import AsyncEngine, AsyncSession
from bakehouse.engine.model import ServedModel
from bakehouse.engine.params import GREEDY, ContextState, ForwardRequest, GenerateRequest, SampleAt, Sampler
from tests.engine.face.conftest import reached
from tests.engine.face.programs import NO_STOP, PROGRAMS, chunks, prompt

Program = Callable[[AsyncSession], Awaitable[Any]]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
async def test_both_faces_give_the_same(program: Program, served: ServedModel, tmp_path: Path) -> None:
    seen = []
    for way in ("in process", "socket"):
        async with reached(way, served, tmp_path) as engine, await engine.open("dummy", "ada") as session:
            seen.append(_comparable(await program(session)))
            for name in ("book", "held"):
                left = await session.lookup_context(name)
                if left is not None:
                    await session.release_context(left)
    assert seen[0] == seen[1]


def _comparable(value: Any) -> Any:
    """Ids of contexts rise over an engine's life; all else must be equal, types included."""
    if isinstance(value, ContextState):
        return replace(value, id=0)
    if isinstance(value, list | tuple):
        return type(value), [_comparable(item) for item in value]
    return value if not is_dataclass(value) else (type(value), value)


async def test_models_and_stats(engine: AsyncEngine) -> None:
    (model,) = await engine.models()
    assert (model.name, model.architecture) == ("dummy", "dummy")
    before = await engine.stats("dummy")
    async with await engine.open("dummy", "ada") as session:
        await chunks(session, await prompt(session), sampler=GREEDY, max_tokens=20, stop=NO_STOP)
    after = await engine.stats("dummy")
    assert after["readouts"] - before["readouts"] >= 15  # the last steps are counted after they are told
    for call in (engine.open("other", "ada"), engine.stats("other")):
        with pytest.raises(NotFound, match="other"):
            await call


async def test_a_packed_mask_is_the_same_mask(engine: AsyncEngine) -> None:
    async with await engine.open("dummy", "ada") as session:
        runs = (97, 26)
        packed = brle.to_bits(runs, session.model.vocab_size)
        told = []
        for mask in (runs, packed):
            context = await prompt(session)
            told.append(await chunks(session, context, sampler=GREEDY, max_tokens=9, stop=NO_STOP, logit_mask=mask))
            request = ForwardRequest(tokens=(65,), samplers=(SampleAt((0,), GREEDY),), logit_mask=mask)
            told.append((await session.forward(request)).results)
        assert told[:2] == told[2:]
        nothing = ForwardRequest(tokens=(65,), samplers=(SampleAt((0,), GREEDY),), logit_mask=bytes(len(packed)))
        with pytest.raises(BadRequest, match="allows no id"):
            await session.forward(nothing)


async def test_a_reader_that_stops_early_has_the_context_as_it_saw_it(engine: AsyncEngine) -> None:
    async with await engine.open("dummy", "ada") as session:
        whole = await chunks(session, await prompt(session), sampler=GREEDY, max_tokens=30, stop=NO_STOP)
        told = [token for chunk in whole for token in chunk.tokens]
        for taken in (0, 1, 7, 29):
            context = await prompt(session)
            stream = await session.generate(
                GenerateRequest(context=context, sampler=GREEDY, max_tokens=30, stop=NO_STOP)
            )
            seen: list[int] = []
            while len(seen) < taken:
                seen += (await anext(stream)).tokens
            child = await session.fork_context(context)
            stream.cancel()
            assert seen == told[:taken]
            for at in (context, child):
                rest = await chunks(session, at, sampler=GREEDY, max_tokens=30 - taken, stop=NO_STOP)
                assert [token for chunk in rest for token in chunk.tokens] == told[taken:]


async def test_a_context_is_busy_until_its_stream_was_read(engine: AsyncEngine) -> None:
    async with await engine.open("dummy", "ada") as session:
        context = await prompt(session)
        stream = await session.generate(GenerateRequest(context=context, sampler=GREEDY, max_tokens=3, stop=NO_STOP))
        first = await anext(stream)
        with pytest.raises(BadRequest, match="generating"):
            await session.append_tokens(context, [65])
        rest = [chunk async for chunk in stream]
        await session.append_tokens(context, [65])
        assert (await session.context_state(context)).buffered[-1] == 65
        assert len(first.tokens) + sum(len(chunk.tokens) for chunk in rest) == 3
        stream.cancel()  # nothing is left to cancel


async def test_a_cancelled_stream_says_so_once(engine: AsyncEngine) -> None:
    async with await engine.open("dummy", "ada") as session:
        stream = await session.generate(
            GenerateRequest(context=await prompt(session), sampler=GREEDY, stop=NO_STOP, max_tokens=10_000)
        )
        await anext(stream)
        stream.cancel()
        with pytest.raises(Cancelled):
            await anext(stream)
        assert [chunk async for chunk in stream] == []


async def test_a_deadline(engine: AsyncEngine) -> None:
    async with await engine.open("dummy", "ada") as session:
        context = await prompt(session)
        with pytest.raises(DeadlineExceeded):
            await chunks(session, context, sampler=GREEDY, stop=NO_STOP, max_tokens=20_000, timeout=0.05)
        await session.append_tokens(context, [65])
        assert len(await chunks(session, context, sampler=GREEDY, stop=NO_STOP, max_tokens=3)) >= 1


async def test_ids_of_one_session_are_nothing_to_another(engine: AsyncEngine) -> None:
    async with await engine.open("dummy", "ada") as ada, await engine.open("dummy", "bob") as bob:
        context = await prompt(ada)
        for call in (bob.context_state(context), bob.release_context(context), bob.flush(context)):
            with pytest.raises(NotFound):
                await call
        assert (await ada.context_state(context)).id == context


async def test_a_closed_session_holds_nothing(engine: AsyncEngine) -> None:
    session = await engine.open("dummy", "ada")
    context = await prompt(session)
    stream = await session.generate(GenerateRequest(context=context, sampler=GREEDY, stop=NO_STOP, max_tokens=10_000))
    await anext(stream)
    await session.close()
    await session.close()
    with pytest.raises(Cancelled):
        async for _ in stream:
            pass
    with pytest.raises(NotFound):
        await session.context_state(context)


async def test_many_streams_at_once_are_as_each_alone(engine: AsyncEngine) -> None:
    async with await engine.open("dummy", "ada") as session:

        async def one(number: int) -> list[int]:
            context = await prompt(session, f"Loaf {number}:")
            found = await chunks(session, context, sampler=Sampler(seed=number + 1), max_tokens=20, stop=NO_STOP)
            await session.release_context(context)
            return [token for chunk in found for token in chunk.tokens]

        together = await asyncio.gather(*(one(number) for number in range(24)))
        assert together[::5] == [await one(number) for number in range(0, 24, 5)]
        assert len({tuple(tokens) for tokens in together}) > 12


async def test_a_task_that_is_cancelled_gives_its_pass_up(engine: AsyncEngine) -> None:
    async with await engine.open("dummy", "ada") as session:
        context = await session.create_context()
        ids = tuple(65 + at % 26 for at in range(30_000))
        request = ForwardRequest(context=context, tokens=ids, samplers=(SampleAt((0,), GREEDY),))
        task = asyncio.create_task(session.forward(request))
        await _until(engine, lambda jobs: jobs == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await _until(engine, lambda jobs: jobs == 0)
        assert (await session.context_state(context)).last_position is None


async def _until(engine: AsyncEngine, enough: Callable[[float], bool]) -> None:
    async with asyncio.timeout(20):
        while not enough((await engine.stats("dummy"))["jobs"]):  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.001)


async def test_calls_that_are_not_awaited_one_by_one_keep_their_order(engine: AsyncEngine) -> None:
    async with await engine.open("dummy", "ada") as session:
        context = await session.create_context()
        await asyncio.gather(*(session.append_tokens(context, [token]) for token in range(200)))
        assert (await session.context_state(context)).buffered == tuple(range(200))
