"""The same work by clients that keep their conversation to themselves and resend it with each request, as one does with
chat completions. They call the engine in its own process, without HTTP: what they lose is the engine's work alone."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from bakehouse.engine.face import AsyncEngine, AsyncSession
from bakehouse.engine.params import GREEDY, GenerateRequest, GrammarSpec
from benchmarks.inferlets.agents.work.workloads import WORKLOADS, plain, rehearse

Turn = tuple[str, str]


class Client:
    """One agent's session, and the matchers that hold the model to the script, made before the work begins."""

    def __init__(self, session: AsyncSession, agent: int) -> None:
        self.session = session
        self.said = 0
        self._agent = agent
        self._matchers: dict[str, list[int]] = defaultdict(list)

    async def prepare(self, workload: str) -> None:
        for marked in await rehearse(workload):
            text = self.numbered(plain(marked))
            matcher = await self.session.create_matcher(GrammarSpec("regex", re.escape(text)))
            self._matchers[text].append(matcher)

    def numbered(self, text: str) -> str:
        return text.replace("####", f"{self._agent:04}")

    async def request(self, turns: Sequence[Turn], text: str) -> None:
        """One request: the whole conversation goes in, the model's next turn comes out."""
        session, matcher = self.session, self._matchers[text].pop()
        context = await session.create_context()
        try:
            for role, turn in turns:
                await getattr(session, role)(context, turn)
            await session.cue(context)
            request = GenerateRequest(context=context, sampler=GREEDY, max_tokens=256, matcher=matcher)
            tokens = [token async for chunk in await session.generate(request) for token in chunk.tokens]
            assert await session.decode(tokens) == text
        finally:
            await session.release_context(context)
        self.said += len(text)


class ResentChat:
    def __init__(self, client: Client, turns: Sequence[Turn]) -> None:
        self._client, self._turns = client, list(turns)

    def user(self, text: str) -> None:
        self._turns.append(("user", self._client.numbered(text)))

    async def say(self, marked: str) -> None:
        """What is known before is generated too: a request has no way to say so."""
        text = self._client.numbered(plain(marked))
        await self._client.request(self._turns, text)
        self._turns.append(("assistant", text))

    async def fork(self) -> ResentChat:
        return ResentChat(self._client, self._turns)

    def close(self) -> None:
        self._turns.clear()


async def run(engine: AsyncEngine, model: str, workload: str, agent: int) -> int:
    """Bytes that were said, which are tokens."""
    async with await engine.open(model, "bench", f"stateless-{agent}") as session:
        client = Client(session, agent)
        await client.prepare(workload)
        await WORKLOADS[workload].play(ResentChat(client, [("system", WORKLOADS[workload].system)]))
    return client.said
