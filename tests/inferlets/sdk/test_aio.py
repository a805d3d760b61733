"""`async def` programs: on asyncio's own loop, and on the one that the sandbox has."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
from inferlet import Model, Sampler
from inferlet._async import Deadlock, HostLoop
from inferlet.aio import (
    Adapter,
    Context,
    Event,
    ForwardPass,
    Grammar,
    Matcher,
    mcp,
    messaging,
    runtime,
    session,
    zo,
)
from inferlet.errors import BadRequest, Cancelled, NotFound

from bakehouse.engine.model import ServedModel
from bakehouse.inferlets.calls.native import NativeHost

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, T]], T]
GREEDY = Sampler.greedy()


def run(main: Coroutine[Any, Any, T]) -> T:
    """On the sandbox's loop."""
    with asyncio.Runner(loop_factory=HostLoop) as runner:
        return runner.run(main)


@pytest.fixture(params=[asyncio.run, run], ids=["asyncio", "host"])
def loop(request: pytest.FixtureRequest) -> Any:
    return request.param


def greeted(model: Model) -> Context:
    context = Context(model)
    context.user("Hello!")
    return context


def test_forks_generate_in_one_batch(loop: Run[Any], model: Model, served: ServedModel) -> None:
    async def main() -> list[str]:
        base = greeted(model)
        base.cue()
        await base.flush()
        before = served.loop.stats()["steps"]
        texts = await asyncio.gather(
            *(base.fork().generate_text(GREEDY, max_tokens=32, auto_flush=False, stop_tokens=[]) for _ in range(8))
        )
        assert served.loop.stats()["steps"] - before < 8 * 32 / 2
        return texts

    assert len(set(loop(main()))) == 1


def test_streams_are_read_with_async_for(loop: Run[Any], model: Model) -> None:
    async def main() -> None:
        context = greeted(model)
        fork = context.fork()
        text = await context.fork().generate_text(GREEDY, max_tokens=12)
        events = [event async for event in context.generate(GREEDY, decode=True, max_tokens=12)]
        assert events[-1] == Event.Done(text)
        tokens: list[int] = []
        async for step in await fork.generate(GREEDY, max_tokens=12):
            tokens += step
        assert model.tokenizer().decode(tokens) == text

    loop(main())


def test_everything_else_that_waits(loop: Run[Any], host: NativeHost, model: Model) -> None:
    async def main() -> None:
        host.guest.deliver("hi")
        host.guest.deliver_file(b"f")
        assert await session.receive() == "hi" and await session.receive_file() == b"f"
        messaging.push("aio", "m")
        assert await messaging.pull("aio") == "m"
        with messaging.subscribe("aio") as news:
            messaging.broadcast("aio", "n")
            async for text in news:
                assert text == "n"
                break
        with await mcp.connect("kitchen") as kitchen:
            assert (await kitchen.call_tool("flour", '{"loaves": 1}')).text == "500 g"
        matcher = await Matcher.create(Grammar.from_regex("ab"), model.tokenizer())
        assert await greeted(model).generate_text(GREEDY, logit_mask=matcher) == "ab"
        adapter = await Adapter.create(model, "aio")
        await zo.initialize(adapter, 4, 8.0, 4, 0.5, 0.5)
        assert await adapter.acquire_lock()
        await adapter.remove()
        output = await ForwardPass(model).input_tokens([1]).sampler([0], GREEDY).execute()
        assert len(output.results) == 1
        with pytest.raises(NotFound):
            await runtime.spawn("pkg@1.0.0")
        with pytest.raises(BadRequest):
            await Context(model).generate_text(GREEDY, auto_flush=False)

    loop(main())


def test_a_wait_that_is_cancelled_takes_nothing(loop: Run[Any], host: NativeHost) -> None:
    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(session.receive(), 0.01)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(messaging.pull("later"), 0.01)
        host.guest.deliver("kept")
        messaging.push("later", "kept too")
        assert await session.receive() == "kept" and await messaging.pull("later") == "kept too"
        assert len(host.guest.waits) == 0

    loop(main())


def test_a_subscription_survives_a_reader_that_gave_up(loop: Run[Any], host: NativeHost) -> None:
    async def main() -> None:
        with messaging.subscribe("patience") as news:
            for _ in range(2):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(news.next(), 0.01)
            messaging.broadcast("patience", "rewarded")
            assert await asyncio.wait_for(news.next(), 5) == "rewarded"

    loop(main())


def test_a_generation_that_is_cancelled_frees_its_context(loop: Run[Any], model: Model) -> None:
    async def main() -> None:
        context = greeted(model)
        task = asyncio.ensure_future(context.generate_text(GREEDY, stop_tokens=[]))
        await asyncio.sleep(0.02)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        context.user("Again.")
        assert await context.generate_text(GREEDY, max_tokens=3) != ""

    loop(main())


def test_a_stream_that_another_task_cuts_says_so(loop: Run[Any], model: Model) -> None:
    async def main() -> None:
        context = greeted(model)
        stream = context.generate(GREEDY, stop_tokens=[])

        async def read() -> None:
            async for _ in stream:
                pass

        task = asyncio.ensure_future(read())
        await asyncio.sleep(0.02)
        context.user("Enough.")
        with pytest.raises(Cancelled, match="used otherwise"):
            await task

    loop(main())


def test_two_tasks_share_a_subscription(loop: Run[Any], host: NativeHost) -> None:
    async def main() -> None:
        with messaging.subscribe("shared") as news:
            tasks = [asyncio.ensure_future(news.next()) for _ in range(2)]
            await asyncio.sleep(0)
            messaging.broadcast("shared", "a")
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            messaging.broadcast("shared", "b")
            assert sorted(await asyncio.gather(*tasks)) == ["a", "b"] and len(done) >= 1

    loop(main())


def test_who_waits_for_a_subscription_is_told_that_it_was_ended(loop: Run[Any], host: NativeHost) -> None:
    async def main() -> None:
        for news in (messaging.subscribe("ended"), messaging.subscribe("ended")):
            listening = asyncio.ensure_future(_all_of(news))
            waiting = asyncio.ensure_future(news.next())
            await asyncio.sleep(0.02)
            news.unsubscribe()
            assert await listening == []
            with pytest.raises(RuntimeError, match="'ended' has ended"):
                await waiting
        assert len(host.guest.waits) == 0

    loop(main())


async def _all_of(news: messaging.Subscription) -> list[str]:
    return [text async for text in news]


def test_the_host_loop_is_a_whole_asyncio(host: NativeHost) -> None:
    async def main() -> str:
        started = time.monotonic()
        await asyncio.gather(*(asyncio.sleep(0.05) for _ in range(20)))
        assert 0.04 < time.monotonic() - started < 0.5
        queue: asyncio.Queue[str] = asyncio.Queue()
        async with asyncio.TaskGroup() as group:
            group.create_task(queue.put("x"))
            got = group.create_task(queue.get())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        async with asyncio.Lock(), asyncio.Semaphore(1):
            pass
        with pytest.raises(ExceptionGroup):
            await _group_that_fails()
        with pytest.raises(RuntimeError, match="no threads"):
            await asyncio.to_thread(len, "x")
        asyncio.ensure_future(asyncio.sleep(60))  # noqa: RUF006  it is cancelled at the end
        return got.result()

    assert run(main()) == "x"
    with pytest.raises(ZeroDivisionError):
        run(_fails())


async def _group_that_fails() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_fails())
        group.create_task(asyncio.sleep(60))


async def _fails() -> None:
    raise ZeroDivisionError


def test_a_deadlock_is_seen(host: NativeHost) -> None:
    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match="nothing can happen"):
        run(main())


def test_the_host_loop_waits_without_work(host: NativeHost) -> None:
    timer = threading.Timer(0.3, host.guest.deliver, ("late",))

    async def main() -> str:
        return await session.receive()

    timer.start()
    before = time.process_time()
    assert run(main()) == "late"
    assert time.process_time() - before < 0.2
    timer.join()


def test_thousands_of_waits(host: NativeHost) -> None:
    async def main() -> int:
        waiting = [asyncio.ensure_future(messaging.pull("many")) for _ in range(2000)]
        await asyncio.sleep(0)
        for _ in waiting:
            messaging.push("many", "x")
        return len(await asyncio.gather(*waiting))

    assert run(main()) == 2000


def test_the_loop_can_be_the_only_one(host: NativeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    from inferlet import _async

    monkeypatch.setattr(asyncio, "new_event_loop", asyncio.new_event_loop)
    monkeypatch.setattr(asyncio.events, "new_event_loop", asyncio.events.new_event_loop)
    _async.install()

    async def main() -> bool:
        return isinstance(asyncio.get_running_loop(), HostLoop)

    assert asyncio.run(main())
