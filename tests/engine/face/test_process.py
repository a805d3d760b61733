"""The engine as a process of its own: killed, refused, given up, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bakehouse.engine.errors import BadRequest, EngineLost
from bakehouse.engine.params import GREEDY, GenerateRequest
from bakehouse.engine.spec import ModelSpec
from bakehouse.engine.supervise import EngineProcess, Policy, State
from tests.engine.face.programs import NO_STOP, chunks, prompt

SPEC = ModelSpec(name="dummy", source="dummy", seed=7)
QUICK = Policy(drain=5.0, first_pause=0.05, longest_pause=0.1, crashes=3)


async def test_a_killed_engine_fails_its_requests_and_comes_back() -> None:
    states: list[State] = []
    async with EngineProcess([SPEC], QUICK, on_state=lambda state, _: states.append(state)) as engine:
        await engine.start()
        session = await engine.open("dummy", "ada")
        streams = [
            await session.generate(
                GenerateRequest(context=await prompt(session), sampler=GREEDY, max_tokens=20_000, stop=NO_STOP)
            )
            for _ in range(3)
        ]
        waiting = asyncio.create_task(session.flush(await prompt(session, "x" * 20_000)))
        for stream in streams:
            await anext(stream)
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        for stream in streams:
            with pytest.raises(EngineLost, match="SIGKILL"):
                async for _ in stream:
                    pass
        with pytest.raises(EngineLost, match="SIGKILL"):
            await waiting
        with pytest.raises(EngineLost):
            await session.encode("x")
        await session.close()
        async with await engine.open("dummy", "ada") as again:  # waits for the next process
            assert len(await chunks(again, await prompt(again), sampler=GREEDY, max_tokens=5, stop=NO_STOP)) >= 1
        assert states == [State.STARTING, State.READY, State.WAITING, State.STARTING, State.READY]


async def test_an_engine_that_keeps_dying_is_given_up_and_says_its_last_words() -> None:
    async with EngineProcess([SPEC], QUICK, on_line=lambda _: None) as engine:
        await engine.start()
        async with asyncio.timeout(60):
            while engine.state != State.GAVE_UP:
                if engine.pid is not None:
                    with contextlib.suppress(ProcessLookupError):  # it is dead, and that is not yet noticed
                        os.kill(engine.pid, signal.SIGABRT)  # faulthandler prints its stack
                await asyncio.sleep(0.02)
        for call in (engine.models(), engine.open("dummy", "ada"), engine.stats("dummy")):
            with pytest.raises(EngineLost, match=r"3 times in a row(.|\n)*SIGABRT(.|\n)*Fatal Python error"):
                await call
        await engine.start()
        assert [model.name for model in await engine.models()] == ["dummy"]


async def test_a_connection_that_is_cut_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bakehouse.engine.supervise._EXIT_PATIENCE", 0.5)
    async with EngineProcess([SPEC], QUICK) as engine:
        await engine.start()
        pid, remote = engine.pid, engine._engine
        session = await engine.open("dummy", "ada")
        assert remote is not None
        assert remote.channel.link._transport is not None
        remote.channel.link._transport.abort()
        with pytest.raises(EngineLost):
            await session.encode("x")
        async with await engine.open("dummy", "ada") as again:
            assert await again.encode("x") == [120]
        assert engine.pid == pid


async def test_what_is_refused_is_raised_at_the_start() -> None:
    engine = EngineProcess([SPEC, SPEC], QUICK)
    with pytest.raises(BadRequest, match="two models") as refused:
        await engine.start()
    assert refused.value.field == "name"
    assert engine.state == State.STOPPED
    with pytest.raises(EngineLost, match="two models"):
        await engine.models()
    await engine.close()


async def test_stopping_lets_a_generation_end() -> None:
    engine = EngineProcess([SPEC], QUICK)
    await engine.start()
    session = await engine.open("dummy", "ada")
    stream = await session.generate(
        GenerateRequest(context=await prompt(session), sampler=GREEDY, max_tokens=400, stop=NO_STOP)
    )
    await anext(stream)
    child = engine._child
    closing = asyncio.create_task(engine.close())
    told = [chunk async for chunk in stream]
    assert told[-1].finish is not None
    await closing
    assert child is not None
    assert child.process.returncode == 0
    assert not child.socket.parent.exists()
    with pytest.raises(EngineLost):
        await engine.models()


async def test_its_directory_is_private() -> None:
    async with EngineProcess([SPEC], QUICK) as engine:
        await engine.start()
        assert engine._child is not None
        assert engine._child.socket.parent.stat().st_mode & 0o077 == 0
        assert engine._child.socket.stat().st_mode & 0o077 == 0


def test_it_dies_with_its_parent() -> None:
    code = (
        "import asyncio, sys\n"
        "from bakehouse.engine.spec import ModelSpec\n"
        "from bakehouse.engine.supervise import EngineProcess\n"
        "async def main():\n"
        "    engine = EngineProcess([ModelSpec(name='dummy', source='dummy')])\n"
        "    await engine.start()\n"
        "    print(engine.pid, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while _alive(pid):
        assert time.monotonic() < deadline, f"process {pid} outlived its parent"
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
