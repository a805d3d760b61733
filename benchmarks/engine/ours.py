"""Our engine in this process, through its handle, as
``python -m benchmarks.engine.ours FOLDER DTYPE THREADS KV_TOKENS DEVICE``.

Long histories are not computed: a runner that does nothing stands in while they are taken in, over a KV pool filled
with random numbers, because what KV holds does not change the time. Everything that is timed runs on the real one.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch

from bakehouse.cli.modelbench import context_of
from bakehouse.engine.face import AsyncSession
from bakehouse.engine.handle import Engine
from bakehouse.engine.model import ServedModel
from bakehouse.engine.params import GREEDY, GenerateRequest, Stop
from bakehouse.engine.plan.step import Readout, ReadoutResult, StepPlan
from bakehouse.engine.runner.base import Runner
from bakehouse.engine.spec import ModelSpec
from benchmarks.engine import device
from benchmarks.engine.workers import answer

PHASES = ("plan", "forward", "masks", "sample", "commit", "publish")


class Idle(Runner):
    """Answers at once and touches no KV."""

    def __init__(self, runner: Runner) -> None:
        self.shape = runner.shape

    def allocate(self, pages: int) -> None:
        raise NotImplementedError("the real runner has the pool")

    def forward(self, plan: StepPlan) -> None:
        return None

    def sample(self, forwarded: Any, readouts: Sequence[Readout]) -> list[ReadoutResult]:
        return [ReadoutResult(0) for _ in readouts]

    def close(self) -> None:
        return None


class Ours:
    def __init__(self, folder: str, dtype: str, threads: int, kv_tokens: int, where: str) -> None:
        torch.set_num_threads(threads)
        self.loop = asyncio.new_event_loop()
        spec = ModelSpec(name="bench", source=folder, dtype=dtype, kv_tokens=kv_tokens, device=where)
        self.served = ServedModel.load(spec)
        self.where = where
        self.engine = Engine([self.served])
        self._fill_pool()

    def _fill_pool(self) -> None:
        """Random numbers in every page: a block of them, copied."""
        for layer in self.served.runner._pool.layers:  # type: ignore[attr-defined]
            rows = min(4096, len(layer))
            block = torch.randn(rows, layer.shape[1]).to(layer.dtype)
            for start in range(0, len(layer), rows):
                layer[start : start + rows] = block[: len(layer) - start]

    @contextmanager
    def free_of_charge(self) -> Iterator[None]:
        real = self.served.runner
        self.served.loop.runner = Idle(real)
        try:
            yield
        finally:
            self.served.loop.runner = real

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    # Questions

    def ready(self) -> dict[str, Any]:
        info = self.served.info
        return {"dtype": info.dtype, "pages": info.pages, "torch": torch.__version__, "card": device.card(self.where)}

    def prefill(self, tokens: int) -> float:
        return float(self.run(self._prefill(tokens)))

    async def _prefill(self, tokens: int) -> float:
        async with await self.engine.open("bench", "bench") as session:
            context = await context_of(session, tokens)
            started = time.perf_counter()
            await _first(session, context, 1)
            return tokens / (time.perf_counter() - started)

    def linears(self, rows: int) -> float:
        """Milliseconds of all linear layers of the model, one after the other, each over so many rows; a median.

        By themselves, because a decode step runs a whole layer as one call, in which they cannot be timed.
        """
        runner: Any = self.served.runner
        inputs = {
            width: torch.randn(rows, width).to(torch.bfloat16) for width in {x.in_features for x in runner.linears}
        }
        spent = []
        with torch.inference_mode():
            for _ in range(7):
                started = time.perf_counter()
                for linear in runner.linears:
                    linear.rows(inputs[linear.in_features])
                spent.append(time.perf_counter() - started)
        return 1000 * statistics.median(spent)

    def decode(self, sequences: int, context: int, tokens: int) -> dict[str, float]:
        """Tokens per second between two steps, and shares of a step's time."""
        return dict(self.run(self._decode(sequences, context, tokens)))

    async def _decode(self, sequences: int, context: int, tokens: int) -> dict[str, float]:
        async with await self.engine.open("bench", "bench") as session:
            contexts = await self._histories(session, sequences, context)
            before: dict[str, Any] = {}
            seen: list[list[float]] = [[] for _ in contexts]
            warm = 2

            async def follow(number: int, at: int) -> None:
                stream = await session.generate(_request(at, tokens + warm + 1))
                async for chunk in stream:
                    seen[number] += [time.perf_counter()] * len(chunk.tokens)
                    if not before and all(len(times) > warm for times in seen):
                        before.update(await self.engine.stats("bench"), at=time.perf_counter())

            await asyncio.gather(*(follow(number, at) for number, at in enumerate(contexts)))
            after = await self.engine.stats("bench")
            start, end = max(times[warm] for times in seen), min(times[-1] for times in seen)
            made = sum(start < at <= end for times in seen for at in times)
            return {"rate": made / (end - start), **_shares(before, after)}

    async def _histories(self, session: AsyncSession, count: int, length: int) -> list[int]:
        contexts = [await context_of(session, length + 1) for _ in range(count)]
        with self.free_of_charge():
            await asyncio.gather(*(session.flush(context) for context in contexts))
        return contexts

    def under_load(self, running: int, context: int, prompt: int) -> dict[str, float]:
        """Seconds to the first token of a new *prompt* while *running* sequences decode, and what it did to them."""
        return dict(self.run(self._under_load(running, context, prompt)))

    async def _under_load(self, running: int, context: int, prompt: int) -> dict[str, float]:
        async with await self.engine.open("bench", "bench") as session:
            contexts = await self._histories(session, running, context)
            streams = [await session.generate(_request(at, 100_000)) for at in contexts]
            times: list[float] = []
            steady = asyncio.Event()

            async def follow(number: int) -> None:
                async for _ in streams[number]:
                    if number == 0:
                        times.append(time.perf_counter())
                        if len(times) == 4:
                            steady.set()

            followers = [asyncio.create_task(follow(number)) for number in range(running)]
            if running:
                await steady.wait()
            new = await context_of(session, prompt)
            started = time.perf_counter()
            await _first(session, new, 1)
            ended = time.perf_counter()
            for follower in followers:
                follower.cancel()
            await asyncio.gather(*followers, return_exceptions=True)
            for stream in streams:
                stream.cancel()
            gaps = [b - a for a, b in pairwise(times) if b > started and a < ended]
            return {"ttft_s": ended - started, "longest_gap_s": max(gaps, default=0.0)}

    def continuations(self, count: int, prompt: int, forks: bool) -> dict[str, float]:
        """Rows run for *count* first tokens after one *prompt*: in forks of it, or asked for at once without forks."""
        return dict(self.run(self._continuations(count, prompt, forks)))

    async def _continuations(self, count: int, prompt: int, forks: bool) -> dict[str, float]:
        async with await self.engine.open("bench", "bench") as session:
            first = await context_of(session, prompt)
            ids = (await session.context_state(first)).buffered
            before, started = await self.engine.stats("bench"), time.perf_counter()
            if forks:
                await session.flush(first)
                contexts = [await session.fork_context(first) for _ in range(count)]
            else:
                contexts = [await session.create_context() for _ in range(count)]
                for context in contexts:
                    await session.append_tokens(context, ids)
            await asyncio.gather(*(_first(session, context, 1) for context in contexts))
            seconds = time.perf_counter() - started
            await asyncio.sleep(0.05)  # a step is counted after its tokens were told
            after = await self.engine.stats("bench")
            return {"rows": after["rows"] - before["rows"], "seconds": seconds}

    def fork(self, tokens: int, times: int = 50) -> float:
        """Seconds of one fork of a context with *tokens* in KV, the median."""
        return float(self.run(self._fork(tokens, times)))

    async def _fork(self, tokens: int, times: int) -> float:
        session = self.engine.session("bench", "bench")
        context = session.create_context()
        session.append_tokens(context, [at % 1000 for at in range(tokens + 1)])
        with self.free_of_charge():
            await asyncio.wrap_future(session.flush(context))
        taken = []
        for _ in range(times):
            started = time.perf_counter()
            child = session.fork_context(context)
            taken.append(time.perf_counter() - started)
            session.release_context(child)
        session.close()
        return statistics.median(taken)


def _request(context: int, tokens: int) -> GenerateRequest:
    return GenerateRequest(context=context, sampler=GREEDY, max_tokens=tokens, stop=Stop(tokens=()))


async def _first(session: AsyncSession, context: int, tokens: int) -> None:
    async for _ in await session.generate(_request(context, tokens)):
        pass


def _shares(before: dict[str, Any], after: dict[str, Any]) -> dict[str, float]:
    """Of the steps between two readings: their time, and what of it is ours beside the model."""
    spent = {phase: after[f"seconds_{phase}"] - before[f"seconds_{phase}"] for phase in PHASES}
    whole, steps = sum(spent.values()), after["steps"] - before["steps"]
    found = {"step_ms": 1000 * whole / steps, "overhead": 1 - spent["forward"] / whole}
    return found | {f"{phase}_ms": 1000 * seconds / steps for phase, seconds in spent.items()}


def main() -> None:
    folder, dtype, threads, kv_tokens, where = sys.argv[1:]
    ours = Ours(folder, dtype, int(threads), int(kv_tokens), where)
    answer(
        {
            "ready": ours.ready,
            "prefill": ours.prefill,
            "decode": ours.decode,
            "linears": ours.linears,
            "under_load": ours.under_load,
            "continuations": ours.continuations,
            "fork": ours.fork,
            "memory": lambda: device.memory(where),
        }
    )


if __name__ == "__main__":
    main()
