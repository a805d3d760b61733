"""The loop under trouble: cancels in the middle of a step, deadlines, runners that raise, ends."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from queue import Queue
from typing import Any

import pytest

from bakehouse.engine.adapters.base import ZoParams
from bakehouse.engine.errors import (
    BadRequest,
    Cancelled,
    DeadlineExceeded,
    EngineLost,
    LimitExceeded,
    Locked,
    NotFound,
    OutOfPages,
    StepFailed,
)
from bakehouse.engine.handle import Engine
from bakehouse.engine.model import ServedModel
from bakehouse.engine.params import (
    GREEDY,
    Chunk,
    ForwardRequest,
    GenerateRequest,
    GrammarSpec,
    SampleAt,
    Sampler,
    Stop,
)
from bakehouse.engine.plan.step import StepPlan
from bakehouse.engine.runner.base import Runner
from bakehouse.engine.session import Session
from bakehouse.engine.spec import ModelSpec
from bakehouse.engine.watchdog import STATUS, Watchdog
from tests.engine.session.support import generate, read, settled, text_context, tokens_of

NEVER = Stop(tokens=())


class Gate(Runner):
    """The dummy behind a gate: steps wait until they are let through, or fail as they are told."""

    def __init__(self, inner: Runner) -> None:
        self.inner = inner
        self.shape = inner.shape
        self.adapters = inner.adapters  # type: ignore[attr-defined]
        self.open = threading.Event()
        self.open.set()
        self.inside = threading.Event()
        self.failures: list[Exception] = []
        self.plans: list[StepPlan] = []

    def allocate(self, pages: int) -> None:
        self.inner.allocate(pages)

    def forward(self, plan: StepPlan) -> Any:
        self.plans.append(plan)
        self.inside.set()
        assert self.open.wait(20)
        if self.failures:
            raise self.failures.pop(0)
        return self.inner.forward(plan)

    def sample(self, forwarded: Any, readouts: Any) -> Any:
        return self.inner.sample(forwarded, readouts)

    def close(self) -> None:
        self.inner.close()

    def hold(self) -> None:
        """The next step that starts stays inside."""
        self.inside.clear()
        self.open.clear()

    def wait_inside(self) -> None:
        assert self.inside.wait(20)


SPEC = ModelSpec(name="gated", source="dummy", seed=3, kv_tokens=4096, max_step_tokens=256, prefill_chunk=64)


def serve(spec: ModelSpec = SPEC) -> tuple[ServedModel, Gate]:
    loaded = ServedModel.load(spec)
    loaded.close()
    gate = Gate(loaded.runner)
    return ServedModel(spec, gate, loaded.tokenizer, loaded.chat, loaded.grammars), gate


@pytest.fixture
def gated() -> Iterator[tuple[ServedModel, Gate]]:
    served, gate = serve()
    yield served, gate
    gate.open.set()
    if served.loop.dead is None:
        settled(served)
    served.close()


def test_cancel_in_the_middle_of_a_step_leaves_the_context_usable(gated):
    served, gate = gated
    with Session(served, "ada") as session:
        expected = generate(session, text_context(session, "one two "), sampler=GREEDY, max_tokens=20, stop=NEVER)
        context = text_context(session, "one two ")
        stream = session.generate(GenerateRequest(context=context, sampler=GREEDY, stop=NEVER))
        got = read(stream, 5)
        gate.hold()
        gate.wait_inside()
        stream.close()
        # At once, with the step still inside the model:
        assert session.context_state(context).buffered == (got[-1],)
        child = session.fork_context(context)
        following = session.generate(GenerateRequest(context=context, sampler=GREEDY, max_tokens=7, stop=NEVER))
        gate.open.set()
        assert got + tokens_of(following) == expected[: len(got) + 7]
        assert got + generate(session, child, sampler=GREEDY, max_tokens=7, stop=NEVER) == expected[: len(got) + 7]
        with pytest.raises(Cancelled):
            next(stream)


@pytest.mark.parametrize("length", [40, 200])
def test_cancel_in_the_middle_of_a_prefill(gated, length):
    served, gate = gated
    with Session(served, "ada") as session:
        text = "abcdefgh" * (length // 8)
        expected = generate(session, text_context(session, text), sampler=GREEDY, max_tokens=5, stop=NEVER)
        served.planner.pages.forget_cached()
        context = text_context(session, text)
        gate.hold()
        stream = session.generate(GenerateRequest(context=context, sampler=GREEDY, stop=NEVER))
        gate.wait_inside()
        stream.close()
        assert len(session.context_state(context).buffered) == length
        gate.open.set()
        assert generate(session, context, sampler=GREEDY, max_tokens=5, stop=NEVER) == expected


def test_releasing_and_closing_in_the_middle_of_a_step(gated):
    served, gate = gated
    with Session(served, "ada") as session, Session(served, "bob") as other:
        contexts = [text_context(session, f"{n} " * 20) for n in range(6)]
        futures = [session.flush(context) for context in contexts[:3]]
        gate.hold()
        gate.wait_inside()
        streams = [session.generate(GenerateRequest(context=context, stop=NEVER)) for context in contexts[3:]]
        kept = other.generate(GenerateRequest(context=text_context(other, "mine "), sampler=GREEDY, max_tokens=6))
        session.release_context(contexts[0])
        session.close()
        gate.open.set()
        for future in futures:
            with pytest.raises(Cancelled):
                future.result(20)
        for stream in streams:
            with pytest.raises(Cancelled):
                list(stream)
        assert list(kept)[-1].finish


def test_a_step_that_fails_fails_its_own_passes_and_nothing_else(gated):
    served, gate = gated
    with Session(served, "ada") as session:
        text = "what happened before stays "
        expected = generate(session, text_context(session, text), sampler=GREEDY, max_tokens=12, stop=NEVER)
        context = text_context(session, text)
        got = generate(session, context, sampler=GREEDY, max_tokens=4, stop=NEVER)
        gate.failures.append(RuntimeError("the device is unwell"))
        with pytest.raises(StepFailed, match="the device is unwell"):
            generate(session, context, sampler=GREEDY, max_tokens=4, stop=NEVER)
        got += generate(session, context, sampler=GREEDY, max_tokens=8, stop=NEVER)
        assert got == expected
        assert served.loop.stats()["failed_steps"] == 1


def test_a_device_that_keeps_failing_makes_the_engine_say_so(gated):
    served, gate = gated
    session = Session(served, "ada")
    gate.failures += [RuntimeError("poisoned")] * 50
    for _ in range(8):
        with pytest.raises((StepFailed, EngineLost)):
            session.forward(ForwardRequest(tokens=(1, 2, 3))).result(20)
    with pytest.raises(EngineLost, match="poisoned"):
        session.forward(ForwardRequest(tokens=(1, 2, 3)))
    assert served.loop.dead is not None
    assert served.loop.trouble(900.0) == served.loop.dead.detail


def test_a_defect_of_planning_is_told_to_everybody(gated, caplog):
    served, gate = gated
    session = Session(served, "ada")
    gate.hold()
    stream = session.generate(GenerateRequest(context=text_context(session, "abc"), stop=NEVER))
    gate.wait_inside()
    waiting = session.create_adapter("never")
    served.planner.running = None  # as if the books were wrong
    gate.open.set()
    with pytest.raises(EngineLost, match="loop broke"):
        list(stream)
    with pytest.raises(EngineLost, match="loop broke"):
        waiting.result(20)
    with pytest.raises(EngineLost):
        session.flush(text_context(session, "abc"))


def test_deadlines(gated):
    served, gate = gated
    with Session(served, "ada") as session:
        context = text_context(session, "in time ")
        gate.hold()
        blocker = session.forward(ForwardRequest(tokens=(1,)))
        gate.wait_inside()
        late = session.generate(GenerateRequest(context=context, stop=NEVER, timeout=0.05))
        later = session.forward(ForwardRequest(tokens=(1, 2), timeout=0.05))
        time.sleep(0.1)
        gate.open.set()
        blocker.result(20)
        with pytest.raises(DeadlineExceeded):
            list(late)
        with pytest.raises(DeadlineExceeded):
            later.result(20)
        assert session.context_state(context).buffered == tuple(session.encode("in time "))
        running = session.generate(GenerateRequest(context=context, sampler=GREEDY, stop=NEVER, timeout=0.3))
        got = read(running, 3)
        with pytest.raises(DeadlineExceeded):
            got.extend(token for chunk in running for token in chunk.tokens)
        assert session.context_state(context).buffered == (got[-1],)


def test_an_impossible_pass_says_how_many_pages_it_needs(gated):
    served, _ = gated
    with Session(served, "ada") as session:
        context = text_context(session, "x" * 5000)
        with pytest.raises(OutOfPages, match="313 pages"):
            session.flush(context).result(20)
        session.set_buffer(context, [97])
        assert generate(session, context, max_tokens=3, stop=NEVER)


def test_owners_take_turns(gated):
    """One owner with very much to do does not keep another from its few tokens."""
    served, gate = gated
    with Session(served, "greedy") as much, Session(served, "modest") as little:
        gate.hold()
        blocker = much.forward(ForwardRequest(tokens=(1,)))
        gate.wait_inside()
        # Different texts, so that nothing is shared.
        heavy = [much.flush(text_context(much, f"{n:03d}" + chr(65 + n) * 300)) for n in range(12)]
        light = little.generate(
            GenerateRequest(context=text_context(little, "tea "), sampler=GREEDY, max_tokens=5, stop=NEVER)
        )
        gate.open.set()
        blocker.result(20)
        list(light)
        for future in heavy:
            future.result(20)
        with_light = [number for number, plan in enumerate(gate.plans) if plan.readouts]
        assert with_light == list(range(with_light[0], with_light[0] + 5))
        assert with_light[0] <= 2 < 12 < len(gate.plans)


def test_results_come_back_in_one_step_for_all(gated):
    served, gate = gated
    with Session(served, "ada") as session:
        gate.hold()
        blocker = session.forward(ForwardRequest(tokens=(1,)))
        gate.wait_inside()
        requests = [
            ForwardRequest(tokens=(97 + n, 98, 99), samplers=(SampleAt((2,), Sampler(seed=n + 1)),)) for n in range(40)
        ]
        futures = [session.forward(request) for request in requests]
        before = served.loop.stats()["steps"]
        gate.open.set()
        blocker.result(20)
        together = [future.result(20).results for future in futures]
        assert served.loop.stats()["steps"] - before <= 2
        assert together == [session.forward(request).result(20).results for request in requests]


def test_a_mask_source_that_fails_breaks_its_own_request_only(gated, monkeypatch):
    served, _ = gated
    compiled = served.grammars.matcher(GrammarSpec("regex", "[ab]+"))

    class Broken:
        terminated = False

        def masks(self, drafts: Any) -> Any:
            raise BadRequest("this grammar has become too large")

        def copy(self) -> Any:
            return self

        def accept(self, tokens: Any) -> None: ...

    with Session(served, "ada") as session:
        good = session.generate(GenerateRequest(context=text_context(session, "ok "), sampler=GREEDY, max_tokens=9))
        monkeypatch.setattr(served.grammars, "matcher", lambda spec, owner: Broken())
        bad = session.generate(
            GenerateRequest(context=text_context(session, "not "), grammar=GrammarSpec("regex", "[ab]+"))
        )
        with pytest.raises(BadRequest, match="too large"):
            list(bad)
        assert tokens_of(good)
    assert compiled.mask()


def test_adapters_change_between_steps_and_pages_are_keyed_by_them(gated):
    served, _ = gated
    with Session(served, "ada") as session, Session(served, "bob") as other:
        text = "an adapter changes what is said here"
        plain = generate(session, text_context(session, text), sampler=GREEDY, max_tokens=12, stop=NEVER)
        adapter = session.create_adapter("flour").result(20)
        params = ZoParams(rank=4, alpha=64.0, population=4, mu_fraction=0.5, sigma=0.5)

        def run(of: Session, which: int, seed: int = 0) -> list[int]:
            context = text_context(of, text)
            return generate(of, context, sampler=GREEDY, max_tokens=12, stop=NEVER, adapter=which, zo_seed=seed)

        assert run(session, adapter) == plain
        session.initialize_zo(adapter, params).result(20)
        assert run(session, adapter) == plain
        noisy = run(session, adapter, seed=77)
        assert noisy != plain
        assert noisy == run(session, adapter, seed=77)
        session.update_zo(adapter, [3.0, 2.0, 1.0, 0.0], [11, 12, 13, 14]).result(20)
        changed = run(session, adapter)
        assert changed != plain
        same = other.lookup_adapter("flour")
        assert same is not None and run(other, same) == changed
        copy = session.clone_adapter(adapter, "rye").result(20)
        assert run(session, copy) == changed
        assert session.lock_adapter(adapter)
        with pytest.raises(Locked):
            other.update_zo(same, [1.0] * 4, [1, 2, 3, 4]).result(20)
        session.unlock_adapter(adapter)
        assert other.lock_adapter(same)
        other.close()
        session.remove_adapter(adapter).result(20)
        with pytest.raises(NotFound):
            run(session, adapter)
        session.remove_adapter(copy).result(20)


def test_stop_drains_when_it_is_told_to():
    served, _ = serve()
    session = Session(served, "ada")
    stream = session.generate(GenerateRequest(context=text_context(session, "to the end "), max_tokens=50, stop=NEVER))
    served.loop.stop(drain=True)
    assert len(tokens_of(stream)) == 50
    with pytest.raises(EngineLost, match="stopped"):
        session.forward(ForwardRequest(tokens=(1,)))
    served.close()


def test_stop_cancels_otherwise():
    served, _ = serve()
    session = Session(served, "ada")
    stream = session.generate(GenerateRequest(context=text_context(session, "not the end "), stop=NEVER))
    next(stream)
    served.close()
    with pytest.raises(Cancelled):
        list(stream)
    served.close()


async def test_the_async_handle_wakes_its_readers_once_per_step(monkeypatch):
    loop = asyncio.get_running_loop()
    calls = []
    wake = loop.call_soon_threadsafe
    monkeypatch.setattr(
        loop, "call_soon_threadsafe", lambda *args, **options: (calls.append(1), wake(*args, **options))
    )
    async with await Engine.start([SPEC]) as engine:
        calls.clear()
        session = await engine.open("gated", "ada")
        streams = []
        for number in range(16):
            context = await session.create_context()
            await session.append_tokens(context, await session.encode(f"reader {number} "))
            streams.append(
                await session.generate(GenerateRequest(context=context, sampler=GREEDY, max_tokens=30, stop=NEVER))
            )

        async def drain(stream: Any) -> list[Chunk]:
            return [chunk async for chunk in stream]

        results = await asyncio.gather(*map(drain, streams))
        assert all(len(tokens_of(chunks)) == 30 for chunks in results)
        stats = await engine.stats("gated")
        assert stats["jobs"] == 0
        assert len(calls) <= stats["steps"] + len(streams)


async def test_a_cancelled_task_gives_its_pass_up():
    async with await Engine.start([SPEC]) as engine:
        session = await engine.open("gated", "ada")
        context = await session.create_context()
        await session.append_tokens(context, [97] * 3000)
        flush = asyncio.create_task(session.flush(context))
        await asyncio.sleep(0)
        flush.cancel()
        with pytest.raises(asyncio.CancelledError):
            await flush
        await session.set_buffer(context, [97])
        with pytest.raises(NotFound, match="served are: gated"):
            await engine.open("other", "ada")


def test_many_threads_at_once_leave_nothing(gated):
    served, _ = gated
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            with Session(served, f"owner-{number % 3}") as session:
                for turn in range(6):
                    context = text_context(session, f"{number} {turn} " * 3)
                    stream = session.generate(GenerateRequest(context=context, sampler=GREEDY, stop=NEVER))
                    read(stream, 1 + (number * turn) % 7)
                    child = session.fork_context(context)
                    stream.close()
                    session.append_tokens(child, [97])
                    generate(session, child, max_tokens=3, stop=NEVER)
                    if turn % 2:
                        session.release_context(context)
        except BaseException as error:
            errors.append(error)

    side_by_side(work, [(number,) for number in range(24)])
    assert not errors


def side_by_side(work: Callable[..., None], calls: Iterable[tuple[int, ...]]) -> None:
    """Each call of *work* on a thread of its own, to their ends."""
    threads = [threading.Thread(target=work, args=arguments) for arguments in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)


def slow_down(gate: Any, seconds: float) -> None:
    """Let each step of the gate's runner take *seconds* more."""
    inner = gate.inner.forward

    def forward(plan: StepPlan) -> Any:
        time.sleep(seconds)
        return inner(plan)

    gate.inner.forward = forward


def test_programs_that_run_pass_by_pass_stay_in_one_batch(gated):
    served, gate = gated
    slow_down(gate, 0.02)
    barrier = threading.Barrier(12)

    def work() -> None:
        with Session(served, "ada") as session:
            context = session.create_context()
            barrier.wait(20)
            for _ in range(12):
                request = ForwardRequest(context=context, tokens=(97,), samplers=(SampleAt((0,), GREEDY),))
                session.forward(request).result(20)

    before = served.loop.stats()
    side_by_side(work, [()] * 12)
    after = served.loop.stats()
    assert after["sequences"] - before["sequences"] == 144
    assert after["steps"] - before["steps"] <= 24  # without company: two batches that take turns, or more


def test_programs_that_go_on_after_a_generation_stay_in_one_batch(gated):
    """One writes 60 tokens at a time, the other two at a time: its next generation is in the very next step."""
    served, gate = gated
    slow_down(gate, 0.03)
    barrier = threading.Barrier(2)

    def work(times: int, tokens: int) -> None:
        with Session(served, "ada") as session:
            context = session.create_context()
            session.append_tokens(context, [97])
            request = GenerateRequest(context=context, sampler=GREEDY, max_tokens=tokens, stop=Stop(()))
            barrier.wait(20)
            for _ in range(times):
                assert sum(len(chunk.tokens) for chunk in session.generate(request)) == tokens

    before = served.loop.stats()
    side_by_side(work, [(1, 60), (30, 2)])
    after = served.loop.stats()
    assert after["sequences"] - before["sequences"] == 120
    assert after["steps"] - before["steps"] <= 75  # without company: 90, as it misses a step each time


def test_drafts_of_a_pass_are_all_verified_or_refused(gated):
    served, _ = gated
    with Session(served, "ada") as session:
        text = tuple(session.encode("x" * 70))
        expected = generate(session, text_context(session, "x" * 70), sampler=GREEDY, max_tokens=41, stop=NEVER)

        def verify(count: int) -> tuple[int, ...]:
            request = ForwardRequest(
                context=session.create_context(),
                tokens=text,
                samplers=(SampleAt((len(text) - 1,), GREEDY),),
                draft_tokens=tuple(expected[:count]),
            )
            return session.forward(request).result(20).accepted

        # The second chunk of 64 has 6 rows of input left, so 40 fit with them; with 63 the last row waits for a step.
        assert list(verify(40)) == expected
        assert list(verify(40)[:1]) == expected[:1]
        expected += [0] * 40
        assert list(verify(63)[:41]) == expected[:41]
        with pytest.raises(LimitExceeded, match="room for 63"):
            verify(64)


def test_a_step_that_hangs_is_seen(gated: tuple[ServedModel, Gate]) -> None:
    served, gate = gated
    told: Queue[str] = Queue()
    watchdog = Watchdog(Engine([served]).trouble, 0.3, told.put)
    try:
        session = Session(served, "ada", "p")
        context = session.create_context(None)
        for _ in range(3):  # together they take longer than one of them may
            session.append_tokens(context, [65] * 8)
            session.flush(context).result(20)
            time.sleep(0.15)
        assert told.empty()
        gate.hold()
        session.append_tokens(context, [65] * 8)
        flushed = session.flush(context)
        assert told.get(timeout=20) == "a step of model gated did not end in 0.3 s; this process gives up"
        gate.open.set()
        flushed.result(20)
        assert not served.loop.trouble(0.3)
        session.close()
    finally:
        watchdog.close()


def test_a_process_that_gives_up_says_where_it_was() -> None:
    code = "from bakehouse.engine import watchdog; watchdog.Watchdog(lambda _: 'all is lost', 0.1)._thread.join()"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.returncode == STATUS
    assert "all is lost; this process gives up" in ended.stderr and 'File "<string>", line 1' in ended.stderr
