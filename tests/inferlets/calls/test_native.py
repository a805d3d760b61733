"""The same calls for a program of this process: from many threads, and with results that say when they are there."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import time
from collections.abc import Callable, Iterator

import pytest

from bakehouse.engine.handle import Engine
from bakehouse.inferlets.base import Limits
from bakehouse.inferlets.calls.native import NativeHost, open_native
from bakehouse.inferlets.calls.packing import pack_ids
from bakehouse.inferlets.calls.results import Wait
from bakehouse.inferlets.calls.waits import WaitTable
from bakehouse.inferlets.errors import Ended
from tests.inferlets.calls.support import Aside, Here, Kept

REQUEST = json.dumps({"sampler": {"temperature": 0}, "max_tokens": 12, "stop": {"tokens": []}, "whole": True})
INTERFACES = (
    "waits", "models", "contexts", "passes", "grammars", "decoders", "adapters", "client", "runtime", "messaging",
    "mcp",
)  # fmt: skip


def generate(host: NativeHost, text: str) -> int:
    model = host.models.load("dummy")
    which = host.contexts.create(model, None)
    host.contexts.append(which, host.models.encode(model, text))
    return host.passes.generate(which, REQUEST)


def test_it_has_every_interface_and_frees_what_the_program_had(
    engine: Engine, services: Here, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_native(engine, owner="ada", services=services, limits=Limits(contexts=3)) as host:
        assert all(getattr(host, name) is getattr(host.guest.calls, name) for name in INTERFACES)
        assert host.runtime.username() == "ada"
        assert json.loads(host.runtime.limits())["contexts"] == 3
        host.client.send("hello")
        host.client.send_file("YWJj")
        wait = generate(host, "abc")
    assert capsys.readouterr().out == "hello\n[file, 3 bytes]\n"
    for call in (lambda: host.waits.take(wait), host.runtime.version):
        with pytest.raises(Ended):
            call()
    host.close()


def test_many_threads_at_once(engine: Engine, services: Here) -> None:
    with open_native(engine, owner="ada", services=services, outlet=Kept()) as host:
        texts = [f"{number} and {number % 3}" for number in range(24)]
        asides = [Aside(lambda text=text: host.waits.take(generate(host, text))) for text in texts]
        found = [json.loads(aside.result())["tokens"] for aside in asides]
        alone = [json.loads(host.waits.take(generate(host, text)) or "")["tokens"] for text in texts]
        assert found == alone


async def test_an_event_loop_is_told_when_a_result_is_there(engine: Engine, services: Here) -> None:
    loop = asyncio.get_running_loop()

    async def result(host: NativeHost, wait: int) -> str | None:
        there = asyncio.Event()
        host.when_ready(wait, lambda: loop.call_soon_threadsafe(there.set))
        await there.wait()
        return host.waits.take(wait)

    with open_native(engine, owner="ada", services=services, outlet=Kept()) as host:
        waits = [generate(host, text) for text in ("one", "two", "three")]
        items = await asyncio.gather(*(result(host, wait) for wait in waits))
        assert [len(json.loads(item or "")["tokens"]) for item in items] == [12] * 3
        received = asyncio.create_task(result(host, host.client.receive()))
        await asyncio.to_thread(host.guest.deliver, "hello")
        assert await received == "hello"


async def test_a_loop_that_is_gone_holds_up_nobody(engine: Engine, services: Here) -> None:
    with open_native(engine, owner="ada", services=services, outlet=Kept()) as host:
        gone = asyncio.new_event_loop()
        gone.close()
        wait = generate(host, "abc")
        host.when_ready(wait, lambda: gone.call_soon_threadsafe(print))
        ready = await asyncio.to_thread(host.waits.any, pack_ids([wait]), -1.0)
        assert ready == pack_ids([wait])


class Dropped:
    """Frees what it has when it is collected, as the objects of the SDK do."""

    def __init__(self, free: Callable[[], None]) -> None:
        self.free = free
        self.itself = self

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.free()


@pytest.fixture
def no_gc() -> Iterator[None]:
    """Collected is when a test says so."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_gc")
def test_a_finalizer_on_the_engines_thread_waits_until_that_is_free(engine: Engine, services: Here) -> None:
    """It comes while the model's lock is held: what it frees must not go in the midst of a step."""
    with open_native(engine, owner="ada", services=services, outlet=Kept()) as host:
        model = host.models.load("dummy")
        which = host.contexts.create(model, None)
        waits = len(host.guest.waits), host.guest.waits.add(Never)
        loop = engine._models["dummy"].loop
        for free in (lambda: host.contexts.release(which), lambda: host.waits.drop(waits[1])):
            left = Dropped(free)
            del left

        def collect() -> int:
            with loop.lock:
                gc.collect()
                return len(host.guest.contexts)

        assert loop.call(collect).result(20) == 1
        until = time.monotonic() + 20
        while len(host.guest.contexts) or len(host.guest.waits) > waits[0]:
            assert time.monotonic() < until
            time.sleep(0.001)


@pytest.mark.usefixtures("no_gc")
def test_a_finalizer_within_a_call_waits_for_its_end(engine: Engine, services: Here) -> None:
    class Collecting(Never):
        def ready(self) -> bool:
            gc.collect()
            return False

    with open_native(engine, owner="ada", services=services, outlet=Kept()) as host:
        wait = host.client.receive()
        left = Dropped(lambda: host.waits.drop(wait))
        del left
        slow = host.guest.waits.add(Collecting)
        with host.guest.waits._news:
            host.guest.waits._ready.add(slow)
        assert host.waits.any(pack_ids([slow]), 0.01) == ""  # the lock of the waits is held while it collects
        until = time.monotonic() + 20
        while len(host.guest.waits) > 1:
            assert time.monotonic() < until
            time.sleep(0.001)


def test_a_release_by_the_program_itself_is_done_when_it_returns(engine: Engine, services: Here) -> None:
    with open_native(engine, owner="ada", services=services, outlet=Kept()) as host:
        model = host.models.load("dummy")
        which = host.contexts.create(model, None)
        host.contexts.append(which, "a\0\0\0")
        for _ in range(20):
            wait = host.passes.generate(which, json.dumps({"max_tokens": 1000, "stop": {"tokens": []}}))
            host.waits.drop(wait)
            host.contexts.append(which, "a\0\0\0")


class Never(Wait):
    """A wait of nothing."""

    @property
    def over(self) -> bool:
        return False

    def listen(self, table: WaitTable, number: int) -> None:
        pass

    def ready(self) -> bool:
        return False

    def take(self) -> str | None:
        raise AssertionError

    def drop(self) -> None:
        pass
