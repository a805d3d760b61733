"""The event loop where it is needed: `async def` programs inside the sandbox."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bakehouse.engine.handle import Engine
from bakehouse.engine.model import ServedModel
from bakehouse.inferlets.base import Launch, Outcome
from bakehouse.inferlets.calls.guest import Guest
from bakehouse.inferlets.sandbox import Sandbox
from tests.inferlets.conftest import CACHE, Build
from tests.inferlets.sdk.support import Alone, Seen

MAIN = """
import asyncio, time
from inferlet.aio import Context, Model, Sampler, messaging, runtime, session


async def main(input):
    return await globals()[input["part"]]()


async def gather():
    base = Context(Model.load(runtime.models()[0]))
    base.user("Hello!")
    base.cue()
    await base.flush()
    forks = (base.fork().generate_text(Sampler.greedy(), max_tokens=20, auto_flush=False) for _ in range(6))
    texts = await asyncio.gather(*forks)
    found = []
    async for tokens in base.generate(Sampler.greedy(), max_tokens=20, auto_flush=False):
        found += tokens
    return [len(set(texts)), base.model.tokenizer().decode(found) == texts[0]]


async def sleep():
    started = time.monotonic()
    await asyncio.gather(*(asyncio.sleep(0.1) for _ in range(10)))
    return time.monotonic() - started < 0.9


async def tasks():
    async with asyncio.TaskGroup() as group:
        pulled = group.create_task(messaging.pull("sandbox"))
        group.create_task(asyncio.sleep(0.01))
        messaging.push("sandbox", "hello")
    try:
        async with asyncio.timeout(0.01):
            await session.receive()
    except TimeoutError:
        return pulled.result()


async def threads():
    await asyncio.to_thread(len, "x")


async def deadlock():
    await asyncio.Event().wait()
"""

TOP = """
import asyncio
from inferlet.aio import session


async def main_of_mine():
    session.send(await asyncio.wait_for(session.receive(), 60))


asyncio.run(main_of_mine())
"""

Launched = Callable[..., Outcome]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    made = Sandbox(CACHE / "compiled")
    yield made
    made.close()


@pytest.fixture
def launch(sandbox: Sandbox, served: ServedModel, services: Alone, built: Build, seen: Seen) -> Launched:
    def run(source: str, *arguments: str, message: str = "") -> Outcome:
        program: Path = built(source)
        launched = Launch(id="sandboxed", owner="ada", username="ada", program="test@1.0.0", arguments=arguments)
        guest = Guest(launched, Engine([served]), services, seen)
        if message:
            guest.deliver(message)
        try:
            return sandbox.run(sandbox.load(program), guest, lambda stream, text: None)
        finally:
            guest.close()

    return run


@pytest.mark.parametrize(("part", "result"), [("gather", "[1, true]"), ("sleep", "true"), ("tasks", "hello")])
def test_what_works_anywhere_works_there(launch: Launched, part: str, result: str) -> None:
    outcome = launch(MAIN, "--part", part)
    assert outcome.failure is None and outcome.result == result


@pytest.mark.parametrize(("part", "text"), [("threads", "no threads"), ("deadlock", "nothing can happen any more")])
def test_what_cannot_work_says_why(launch: Launched, part: str, text: str) -> None:
    outcome = launch(MAIN, "--part", part)
    assert outcome.failure is not None and text in outcome.failure.message


def test_a_program_may_run_its_own_loop(launch: Launched, seen: Seen) -> None:
    assert launch(TOP, message="echo") == Outcome()
    assert seen.messages == ["echo"]
