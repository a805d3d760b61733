"""An engine in the process of a notebook: where an event loop runs already, and where nobody closes anything."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import inferlet
import pytest
from inferlet import Context, Model, Sampler, aio, runtime, session
from inferlet.errors import NotConnected, NotFound

from bakehouse.core.errors import NotFound as NoSuchModel
from bakehouse.engine.spec import ModelSpec
from bakehouse.wiring.notebook import open_engine
from tests.inferlets.examples.support import run_source

GREEDY = Sampler.greedy()


async def test_cells_run_beside_a_running_loop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both surfaces, in one process, on one model; each cell may wait or block as it likes."""
    with inferlet.connect(open_engine("dummy", ModelSpec(name="other", source="dummy", seed=2), home=tmp_path)):
        assert runtime.models() == ["dummy", "other"] and runtime.username() == "local"
        model = Model.load("dummy")
        with Context(model) as ctx:
            ctx.user("Hello!")
            blocking = ctx.fork().generate_text(GREEDY, max_tokens=12)
            forks = [aio.Context(model) for _ in range(3)]
            for fork in forks:
                fork.user("Hello!")
            texts = await asyncio.gather(*(fork.generate_text(GREEDY, max_tokens=12) for fork in forks))
            assert texts == [blocking] * 3
            assert await asyncio.to_thread(ctx.generate_text, GREEDY, max_tokens=12) == blocking
        session.send("shown")
        with pytest.raises(NotFound, match="not installed"):
            runtime.spawn("child@1.0.0")
    assert capsys.readouterr().out == "shown\n"
    with pytest.raises(NotConnected):
        runtime.models()


def test_a_model_that_is_not_recorded_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoSuchModel, match="no model 'mine' here"):
        open_engine("mine", home=tmp_path)


NEVER_CLOSED = """
import asyncio
import inferlet
from bakehouse.wiring.notebook import open_engine
from inferlet import Context, Model, Sampler, aio, messaging

inferlet.connect(open_engine())
ctx, news = Context(Model.load("dummy")), messaging.subscribe("x")
ctx.user("Hello")
stream = ctx.generate(Sampler.greedy(), stop_tokens=[])
next(stream)

async def cell():
    return await aio.Context(ctx.model, fill=[1, 2]).generate_text(Sampler.greedy(), max_tokens=3, auto_flush=False)

print(len(asyncio.run(cell())) > 0)
"""


def test_a_script_that_never_closes_it_comes_to_its_end(tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin", "BAKEHOUSE_HOME": str(tmp_path)}
    script = [sys.executable, "-c", NEVER_CLOSED]
    done = subprocess.run(script, capture_output=True, text=True, timeout=120, check=False, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


NATIVE = """
import asyncio
from inferlet.aio import Context, Model, Sampler


async def main(input: dict):
    ctx = Context(Model.load("dummy"))
    ctx.user(await asyncio.to_thread(str.upper, input["text"]))
    _, writer = await asyncio.open_connection(*input["address"])
    writer.close()
    await writer.wait_closed()
    return await ctx.generate_text(Sampler.greedy(), max_tokens=4)
"""


async def test_a_native_program_has_all_of_asyncio(tmp_path: Path) -> None:
    """Threads and sockets: whatever a package that it uses may want."""
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    arguments = [json.dumps({"text": "hi", "address": server.sockets[0].getsockname()})]
    async with server:
        with inferlet.connect(open_engine(home=tmp_path)):
            assert len(await asyncio.to_thread(run_source, NATIVE, "native_program.py", arguments)) == 4
