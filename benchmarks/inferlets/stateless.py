"""The same work by clients that keep their conversation to themselves and resend it with each request, as one does with
chat completions. They call the engine in its own process, without HTTP: what they lose is the engine's work alone."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bakehouse.engine.face import AsyncEngine, AsyncSession
from bakehouse.engine.params import GREEDY, GenerateRequest, GrammarSpec
from benchmarks.inferlets.agents.workloads import SYSTEM, WORKLOADS, Chat

Turn = tuple[str, str]


class ResentChat(Chat):
    def __init__(self, session: AsyncSession, turns: Sequence[Turn], said: list[int]) -> None:
        self._session, self._turns, self._said = session, list(turns), said

    def user(self, text: str) -> None:
        self._turns.append(("user", text))

    async def say(self, text: str) -> None:
        context = await self._session.create_context()
        try:
            for role, turn in self._turns:
                await getattr(self._session, role)(context, turn)
            await self._session.cue(context)
            grammar = GrammarSpec("regex", re.escape(text))
            request = GenerateRequest(context=context, sampler=GREEDY, max_tokens=len(text), grammar=grammar)
            tokens = [token async for chunk in await self._session.generate(request) for token in chunk.tokens]
            assert await self._session.decode(tokens) == text
        finally:
            await self._session.release_context(context)
        self._turns.append(("assistant", text))
        self._said[0] += len(text)

    async def write(self, parts: list[tuple[bool, str]]) -> None:
        """What is known before must be generated too: a request has no way to say so."""
        await self.say("".join(text for _, text in parts))

    async def fork(self) -> ResentChat:
        return ResentChat(self._session, self._turns, self._said)

    def close(self) -> None:
        self._turns.clear()


async def run(engine: AsyncEngine, model: str, workload: str, agent: int) -> int:
    """Bytes that were said, which are tokens."""
    said = [0]
    async with await engine.open(model, "bench", f"stateless-{agent}") as session:
        await WORKLOADS[workload](ResentChat(session, [("system", SYSTEM)], said), agent)
    return said[0]
