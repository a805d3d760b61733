"""What ``bakehouse models bench`` measures, through the face of an engine process."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table

from bakehouse.engine.face import AsyncSession
from bakehouse.engine.params import GREEDY, GenerateRequest, Stop
from bakehouse.engine.spec import ModelSpec
from bakehouse.engine.supervise import EngineProcess

_DECODE_CONTEXT = 64


async def measure(
    spec: ModelSpec, prompt: int, sequences: list[int], tokens: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Start an engine with *spec*, measure, stop it. Raises EngineError."""
    engine = EngineProcess([spec], on_line=say)
    started = time.perf_counter()
    await engine.start()
    try:
        ready = time.perf_counter() - started
        async with await engine.open(spec.name, "bench", "bench") as session:
            await prefill(session, min(prompt, 64))  # warm, so that the first figure is no other's
            found: dict[str, Any] = {
                "model": spec.name,
                "device": session.model.device,
                "dtype": session.model.dtype,
                "ready_s": round(ready, 2),
                "prompt": prompt,
                "prefill_tokens_per_s": round(await prefill(session, prompt), 1),
                "decode": [],
            }
            for count in sequences:
                rate = await decode(session, count, _DECODE_CONTEXT, tokens)
                found["decode"].append({"sequences": count, "tokens_per_s": round(rate, 1)})
        return found
    finally:
        await engine.close()


def draw(console: Console, found: dict[str, Any]) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column(f"{found['model']} ({found['dtype']} on {found['device']})", no_wrap=True)
    table.add_column("tokens/s", justify="right")
    table.add_row(f"prefill, {found['prompt']} tokens", f"{found['prefill_tokens_per_s']:,.1f}")
    for row in found["decode"]:
        noun = "sequence" if row["sequences"] == 1 else "sequences"
        table.add_row(f"decode, {row['sequences']} {noun}", f"{row['tokens_per_s']:,.1f}")
    console.print(table, soft_wrap=False)


async def prefill(session: AsyncSession, tokens: int) -> float:
    """Tokens per second of running a prompt of *tokens* ids that no cache has."""
    context = await context_of(session, tokens + 1)
    started = time.perf_counter()
    await session.flush(context)
    seconds = time.perf_counter() - started
    await session.release_context(context)
    return tokens / seconds


async def decode(session: AsyncSession, count: int, context_length: int, tokens: int) -> float:
    """Tokens per second of *count* sequences together, from when the first one is asked for until all have ended.

    Each step decodes: contexts are flushed before, and all sequences are as long.
    """
    contexts = [await context_of(session, context_length) for _ in range(count)]
    for context in contexts:
        await session.flush(context)
    began = time.perf_counter()
    came = await asyncio.gather(*(_generate(session, context, tokens) for context in contexts))
    seconds = time.perf_counter() - began
    for context in contexts:
        await session.release_context(context)
    return sum(came) / seconds


async def _generate(session: AsyncSession, context: int, tokens: int) -> int:
    """How many tokens came, *tokens* at most. Stop ids do not stop it."""
    request = GenerateRequest(context=context, sampler=GREEDY, max_tokens=tokens, stop=Stop(tokens=()))
    return sum([len(chunk.tokens) async for chunk in await session.generate(request)])


async def context_of(session: AsyncSession, tokens: int) -> int:
    """A context with *tokens* ids of its own in the buffer, none of them a stop id."""
    stops, size = set(session.model.stop_tokens), session.model.vocab_size
    context = await session.create_context()
    ids = (random.randrange(size) for _ in iter(int, 1))
    chosen: list[int] = []
    while len(chosen) < tokens:
        token = next(ids)
        if token not in stops:
            chosen.append(token)
    await session.append_tokens(context, chosen)
    return context
