"""A program under plain CPython, its host at the other end of a WebSocket."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress

import inferlet
import pytest
from inferlet import Context, Event, Grammar, Matcher, Model, Sampler, aio, messaging, runtime, session
from inferlet.client import ConnectionLost, Message, Unauthorized
from inferlet.client import Event as Sent
from inferlet.errors import BadRequest, HostError, NotConnected, NotFound
from inferlet.remote import RemoteHost

from tests.inferlets.client.support import PieServer


@pytest.fixture
def sent() -> list[Sent]:
    """What the program sends to its client."""
    return []


@pytest.fixture
def remote(pie: PieServer, sent: list[Sent]) -> Iterator[RemoteHost]:
    host = RemoteHost(pie.address, pie.key, events=sent.append)
    with inferlet.connect(host):
        yield host


@pytest.fixture
def model(remote: RemoteHost) -> Model:
    return Model.load(runtime.models()[0])


def test_a_program_generates_at_a_distance(model: Model) -> None:
    with Context(model) as ctx:
        ctx.user("Hello")
        whole = ctx.generate_text(Sampler.greedy(), max_tokens=24)
    with Context(model) as ctx:
        ctx.user("Hello")
        events = list(ctx.generate(Sampler.greedy(), max_tokens=24, decode=True))
    assert whole == "".join(event.text for event in events if isinstance(event, Event.Text))
    assert isinstance(events[-1], Event.Done)


def test_forks_are_awaited_together(model: Model) -> None:
    async def work() -> list[str]:
        ctx = aio.Context(model)
        ctx.user("Count")
        await ctx.flush()
        forks = [ctx.fork() for _ in range(8)]
        return await asyncio.gather(*(fork.generate_text(Sampler.greedy(), max_tokens=12) for fork in forks))

    texts = asyncio.run(work())
    assert len(texts) == 8
    assert len(set(texts)) == 1


def test_bulk_values_cross(model: Model) -> None:
    ids, texts = model.tokenizer().vocabs()
    assert len(ids) == len(texts) > 256
    assert model.tokenizer().decode(model.tokenizer().encode("grüße")) == "grüße"


def test_grammars_and_masks_work(model: Model) -> None:
    matcher = Matcher(Grammar.from_regex("(ja|nein)"), model.tokenizer())
    with Context(model) as ctx:
        ctx.user("?")
        assert ctx.generate_text(Sampler.greedy(), logit_mask=matcher) in ("ja", "nein")


def test_errors_are_those_of_the_sdk(model: Model) -> None:
    with pytest.raises(NotFound, match="nothing"):
        Model.load("nothing")
    ctx = Context(model)
    ctx.release()
    with pytest.raises(HostError):
        ctx.user("gone")


def test_its_client_is_who_holds_the_host(remote: RemoteHost, model: Model, sent: list[Sent]) -> None:
    remote.send("early")
    assert session.receive() == "early"
    threading.Timer(0.1, remote.send, ["later"]).start()
    assert session.receive() == "later"
    remote.send_file(b"\x00\xff")
    assert session.receive_file() == b"\x00\xff"
    session.send("out")
    remote.send("sync")
    session.receive()
    assert sent == [Message("out", 1)]


def test_messages_between_programs(pie: PieServer, remote: RemoteHost) -> None:
    messaging.push("topic", "one")
    assert messaging.pull("topic") == "one"
    with messaging.subscribe("news") as news:
        messaging.broadcast("news", "a")
        messaging.broadcast("news", "b")
        found = iter(news)
        assert [next(found), next(found)] == ["a", "b"]


def test_what_is_no_call_is_refused(remote: RemoteHost) -> None:
    for interface, method, arguments in (
        ("nothing", "names", []),
        ("models", "_guest", []),
        ("models", "__init__", []),
        ("models", "fly", []),
        ("models", "load", []),
        ("models", "load", ["a", "b"]),
        ("waits", "take", [1]),
    ):
        with pytest.raises(BadRequest):
            remote.request("call", interface=interface, method=method, arguments=arguments)
    with pytest.raises(HostError):
        remote.waits.take(12345)


def test_closing_frees_what_the_program_held(pie: PieServer) -> None:
    first = RemoteHost(pie.address, pie.key)
    with inferlet.connect(first):
        ctx = Context(Model.load(runtime.models()[0]), name="kept-while-open")
        ctx.user("Hello")

        def receive() -> None:
            with pytest.raises((HostError, RuntimeError)):
                session.receive()

        taking = threading.Thread(target=receive, daemon=True)
        taking.start()
    taking.join(20)
    assert not taking.is_alive()
    first.close()
    with pytest.raises(ConnectionLost):
        first.models.names()


def test_closing_while_others_ask_lets_nobody_wait(pie: PieServer) -> None:
    for _ in range(20):
        host = RemoteHost(pie.address, pie.key)

        def ask(host: RemoteHost = host) -> None:
            with suppress(ConnectionLost):
                while True:
                    host.models.names()

        asking = [threading.Thread(target=ask, daemon=True) for _ in range(3)]
        for thread in asking:
            thread.start()
        host.close()
        for thread in asking:
            thread.join(20)
            assert not thread.is_alive()


NEVER_CLOSED = """
import sys
import inferlet
from inferlet import Context, Decoder, Model, Sampler, messaging, runtime

inferlet.connect(sys.argv[1], token=sys.argv[2])
ctx = Context(Model.load(runtime.models()[0]))
ctx.user("Hello")
stream, news, decoder = ctx.generate(Sampler.greedy(), stop_tokens=[]), messaging.subscribe("x"), Decoder(ctx.model)
print(next(stream))
"""


def test_a_script_that_never_closes_it_comes_to_its_end(pie: PieServer) -> None:
    script = [sys.executable, "-c", NEVER_CLOSED, pie.address, pie.key]
    done = subprocess.run(script, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_finalizers_may_come_on_the_hosts_own_thread(remote: RemoteHost, model: Model) -> None:
    """A cycle is collected on whatever thread allocates next; that one must not wait for itself."""
    ctx = Context(model, fill=range(9))
    left = {"context": ctx.fork(), "stream": ctx.generate(Sampler.greedy(), auto_flush=False, stop_tokens=[])}
    left["itself"] = left  # type: ignore[assignment]
    gc.collect()
    gc.disable()
    collected = threading.Event()
    try:
        del left, ctx
        remote._loop.call_soon_threadsafe(lambda: (gc.collect(), collected.set()))
        assert collected.wait(20)
    finally:
        gc.enable()
    assert runtime.models() == ["dummy"]


def test_what_gets_the_events_is_told_not_to_call_back(pie: PieServer) -> None:
    said: list[str] = []

    def answer(event: Sent) -> None:
        with pytest.raises(RuntimeError, match="another thread") as caught:
            host.send("back")
        said.append(str(caught.value))

    host = RemoteHost(pie.address, pie.key, events=answer)
    with inferlet.connect(host):
        session.send("out")
        host.send("sync")
        assert session.receive() == "sync" and len(said) == 1


def test_of_several_hosts_the_newest_that_is_left_is_the_programs(pie: PieServer) -> None:
    connections = [inferlet.connect(pie.address, token=pie.key) for _ in range(3)]
    ids = [connection._host.runtime.instance_id() for connection in connections]
    connections[1].close()
    assert runtime.instance_id() == ids[2]
    connections[2].close()
    assert runtime.instance_id() == ids[0]
    connections[0].close()
    with pytest.raises(NotConnected):
        runtime.instance_id()


def test_threads_share_a_stream_and_a_subscription(model: Model) -> None:
    """Each item goes to one of them, and none is lost."""
    stream = Context(model, fill=range(9)).generate(Sampler.greedy(), auto_flush=False, stop_tokens=[], max_tokens=60)
    found: list[int] = []

    def read() -> None:
        for tokens in stream:
            found.extend(tokens)

    readers = [threading.Thread(target=read, daemon=True) for _ in range(3)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(60)
    assert len(found) == 60 and sorted(found) == sorted(stream.token_ids)


def test_without_a_key_there_is_no_host(pie: PieServer) -> None:
    with pytest.raises((Unauthorized, ConnectionLost)):
        inferlet.connect(pie.address)
    with pytest.raises(Unauthorized):
        inferlet.connect(pie.address, token="inf_wrong")


def test_connect_takes_an_address(pie: PieServer) -> None:
    with inferlet.connect(pie.address, token=pie.key):
        assert runtime.username() == "local"
        assert runtime.models() == ["dummy"]
