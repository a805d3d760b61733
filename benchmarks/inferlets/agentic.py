"""``python -m benchmarks.inferlets.agentic FOLDER DTYPE KV_TOKENS CACHE``: the same work by programs beside the model
and by stateless requests, and a plain completion both ways, on one engine. CACHE is ``on`` or ``off``."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bakehouse.engine.params import GREEDY, Decode, GenerateRequest
from bakehouse.engine.spec import ModelSpec
from benchmarks.engine.workers import answer
from benchmarks.inferlets import stateless
from benchmarks.inferlets.agents.work.workloads import WORKLOADS
from benchmarks.inferlets.house import House


class Measures:
    def __init__(self, source: str, dtype: str, kv_tokens: int, cache: bool) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="bench-inferlets-")
        kind = {} if source == "dummy" else {"dtype": dtype, "kv_tokens": kv_tokens}
        spec = ModelSpec(name="model", source=source, prefix_cache=cache, **kind)  # type: ignore[arg-type]
        self._house = House(spec, Path(self._folder.name))
        for name in ("agents", "complete"):
            self._house.install(name)
        self._agents = 0
        self._read: set[str] = set()

    def ready(self) -> dict[str, Any]:
        return {"model": self._house.model.info.name}

    def agents(self, workload: str, agents: int, side: str) -> dict[str, float]:
        """So many *agents* at one time: stateless clients, or programs that use what a stage allows."""
        # Nobody was these agents before, so that only what agents have in common is in the cache.
        if workload not in self._read:
            self._read.add(workload)
            asyncio.run(self._warm(WORKLOADS[workload].system))
        self._agents += agents
        numbers = range(self._agents, self._agents + agents)
        if side == "stateless":
            found = self._timed(lambda: asyncio.run(self._clients(workload, numbers)))
        else:
            found = self._timed(lambda: self._programs(workload, numbers, side))
        return {"agents": agents, **found}

    async def _warm(self, system: str) -> None:
        """What agents have in common was read before: whoever comes first must not pay for it."""
        async with await self._house.engine.open("model", "bench") as session:
            context = await session.create_context()
            await session.system(context, system)
            await session.flush(context)

    async def _clients(self, workload: str, numbers: range) -> int:
        engine = self._house.engine
        return sum(await asyncio.gather(*(stateless.run(engine, "model", workload, number) for number in numbers)))

    def _programs(self, workload: str, numbers: range, stage: str) -> int:
        asked = ({"workload": workload, "agent": number, "stage": stage} for number in numbers)
        running = [self._house.start("agents", json.dumps(each)) for each in asked]
        return sum(int(self._house.finish(*each)) for each in running)

    def completion(self, prompt: int, tokens: int) -> dict[str, float]:
        """Seconds of one completion: the engine's own, and by a program. Prompts are new, so none is in the cache."""
        own, program = [], []
        for number in range(5):
            began = time.perf_counter()
            asyncio.run(self._own(f"own {number} " + "x" * prompt, tokens))
            own.append(time.perf_counter() - began)
            began = time.perf_counter()
            told = {"prompt": f"program {number} " + "x" * prompt, "tokens": tokens}
            self._house.run("complete", json.dumps(told))
            program.append(time.perf_counter() - began)
        return {"own": sorted(own)[2], "program": sorted(program)[2]}

    async def _own(self, prompt: str, tokens: int) -> None:
        async with await self._house.engine.open("model", "bench") as session:
            context = await session.create_context()
            await session.append_tokens(context, await session.encode(prompt))
            request = GenerateRequest(context=context, sampler=GREEDY, max_tokens=tokens, decode=Decode())
            async for _ in await session.generate(request):
                pass

    def _timed(self, work: Any) -> dict[str, float]:
        before = self._house.model.loop.stats()
        began = time.perf_counter()
        said = work()
        seconds = time.perf_counter() - began
        after = self._house.model.loop.stats()
        counted = {name: after[name] - before[name] for name in ("rows", "steps", "plan_drafted", "plan_rejected")}
        return {"seconds": seconds, "said": said, **counted}


def main() -> None:
    source, dtype, kv_tokens, cache = sys.argv[1:]
    measures = Measures(source, dtype, int(kv_tokens), cache == "on")
    answer({name: getattr(measures, name) for name in ("ready", "agents", "completion")})


if __name__ == "__main__":
    main()
