"""The face of an engine in another process, over its Unix socket. Loads neither torch nor numpy."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from bakehouse.engine import brle, wire
from bakehouse.engine.adapters.base import ZoParams
from bakehouse.engine.brle import Brle
from bakehouse.engine.channel import Channel, Peer, Why
from bakehouse.engine.errors import Cancelled, EngineError, EngineLost
from bakehouse.engine.face import AsyncEngine, AsyncSession, AsyncStream
from bakehouse.engine.params import (
    Chunk,
    ContextState,
    Decode,
    Event,
    ForwardOutput,
    ForwardRequest,
    GenerateRequest,
    GrammarSpec,
    ModelInfo,
)
from bakehouse.engine.wire import Call, Cancel, Open, WireError

Request = TypeVar("Request", ForwardRequest, GenerateRequest)

PEER = Peer("engine", wire.VERSION, lost=EngineLost, silent=EngineLost, read_error=wire.read_error)


class RemoteEngine(AsyncEngine):
    """An engine behind a socket; made by `connect`. All its sessions share the one connection."""

    def __init__(self, why: Why | None) -> None:
        self.channel = Channel(PEER, self._on_item, self._on_over, why)
        self._streams: dict[int, RemoteStream] = {}

    @classmethod
    async def connect(cls, path: Path, why: Why | None = None, timeout: float = 30.0) -> RemoteEngine:
        """Connect to the engine that listens at *path*.

        Raises `EngineLost` where none does, where it speaks another version, or does not answer in *timeout* seconds.
        """
        engine = cls(why)
        await engine.channel.connect(path, timeout)
        return engine

    async def models(self) -> list[ModelInfo]:
        return list(await self.call(0, "models"))

    async def open(self, model: str, owner: str, program: str = "") -> RemoteSession:
        number, session = self.channel.number(), self.channel.number()
        info = await self._ask(Open(number, session, model, owner, program))
        return RemoteSession(self, session, info)

    async def stats(self, model: str) -> dict[str, Any]:
        return dict(await self.call(0, "stats", model=model))

    async def close(self) -> None:
        """Close the connection; the engine frees what its sessions held and goes on."""
        self.channel.close()

    # Asking

    async def call(self, session: int, method: str, **args: Any) -> Any:
        return await self._ask(Call(self.channel.number(), session, method, args, self._taken()))

    def _taken(self) -> list[tuple[int, int]]:
        """What readers here took of their streams since this was last asked."""
        return [(number, stream.report()) for number, stream in self._streams.items() if stream.unreported]

    async def stream(self, session: int, request: GenerateRequest) -> RemoteStream:
        number = self.channel.number()
        # Registered before it is asked for: chunks may be in the frame that brings the answer.
        stream = self._streams[number] = RemoteStream(self, number)
        try:
            await self._ask(Call(number, session, "generate", {"request": request}, self._taken()))
        except BaseException:
            self._streams.pop(number, None)
            raise
        return stream

    async def _ask(self, message: Open | Call) -> Any:
        """Send and wait for the answer. Cancelling this gives the call up on the other side too."""
        try:
            return await self.channel.ask(message.id, wire.message_body(message))
        except asyncio.CancelledError:
            self.give_up(message.id)
            raise

    def give_up(self, number: int, taken: int = 0) -> None:
        """Tell the engine that nobody waits for *number* any more; of a stream *taken* tokens were taken."""
        self._streams.pop(number, None)
        self.channel.send(wire.message_body(Cancel(number, taken)))

    # What comes

    def _on_item(self, kind: str, number: Any, rest: list[Any], tail: memoryview) -> None:
        if kind == "c":
            stream = self._streams.get(number)
            if stream is not None:
                stream.put(wire.load_value(rest[0], tail))
        elif kind != "e":
            raise WireError(f"an item of kind {kind!r}")
        elif number in self._streams:
            self._streams.pop(number).fail(wire.read_error(*rest))

    def _on_over(self, text: str) -> None:
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.fail(EngineLost(text))


class RemoteStream(AsyncStream):
    """Chunks as they came. What is not yet taken is kept: at most one generation, which the longest context bounds."""

    def __init__(self, engine: RemoteEngine, number: int) -> None:
        self._engine, self._number = engine, number
        self._chunks: deque[Chunk] = deque()
        self._error: EngineError | None = None
        self._taken = self._told = 0
        self._ended = False
        self._news = asyncio.Event()

    @property
    def unreported(self) -> bool:
        return self._taken != self._told

    def report(self) -> int:
        """Tokens taken by now, which the engine is about to be told."""
        self._told = self._taken
        return self._taken

    def put(self, chunk: Chunk) -> None:
        self._chunks.append(chunk)
        self._news.set()

    def fail(self, error: EngineError) -> None:
        self._error = error
        self._news.set()

    def cancel(self) -> None:
        if not self._ended and self._error is None:
            self._chunks.clear()
            self._engine.give_up(self._number, self._taken)
            self.fail(Cancelled("the stream was closed"))

    async def __anext__(self) -> Chunk:
        while not self._chunks:
            if self._ended:
                raise StopAsyncIteration
            if self._error is not None:
                self._ended = True
                raise self._error
            self._news.clear()
            await self._news.wait()
        chunk = self._chunks.popleft()
        self._taken += len(chunk.tokens)
        if chunk.finish is not None:
            self._ended = True
            self._engine.give_up(self._number, wire.READ_OUT)
        return chunk


class RemoteSession(AsyncSession):
    """A session on the other side."""

    def __init__(self, engine: RemoteEngine, number: int, model: ModelInfo) -> None:
        self.model = model
        self._engine = engine
        self._number = number
        self._closed = False

    async def _call(self, method: str, **args: Any) -> Any:
        return await self._engine.call(self._number, method, **args)

    async def encode(self, text: str) -> list[int]:
        return list(await self._call("encode", text=text))

    async def decode(self, tokens: Sequence[int]) -> str:
        return str(await self._call("decode", tokens=list(tokens)))

    async def vocabulary(self) -> tuple[list[int], list[bytes]]:
        ids, texts = await self._call("vocabulary")
        return list(ids), list(texts)

    async def special_tokens(self) -> tuple[list[int], list[bytes]]:
        ids, texts = await self._call("special_tokens")
        return list(ids), list(texts)

    async def split_regex(self) -> str:
        return str(await self._call("split_regex"))

    async def create_context(self, name: str | None = None) -> int:
        return int(await self._call("create_context", name=name))

    async def lookup_context(self, name: str) -> int | None:
        return _maybe(await self._call("lookup_context", name=name))

    async def fork_context(self, context: int, name: str | None = None) -> int:
        return int(await self._call("fork_context", context=context, name=name))

    async def release_context(self, context: int) -> None:
        await self._call("release_context", context=context)

    async def context_state(self, context: int) -> ContextState:
        state: ContextState = await self._call("context_state", context=context)
        return state

    async def append_tokens(self, context: int, tokens: Sequence[int]) -> None:
        await self._call("append_tokens", context=context, tokens=list(tokens))

    async def set_buffer(self, context: int, tokens: Sequence[int]) -> None:
        await self._call("set_buffer", context=context, tokens=list(tokens))

    async def set_cursor(self, context: int, cursor: int) -> None:
        await self._call("set_cursor", context=context, cursor=cursor)

    async def reserve_pages(self, context: int, count: int) -> None:
        await self._call("reserve_pages", context=context, count=count)

    async def release_pages(self, context: int, count: int) -> None:
        await self._call("release_pages", context=context, count=count)

    async def commit_pages(self, context: int, indices: Sequence[int]) -> None:
        await self._call("commit_pages", context=context, indices=list(indices))

    async def system(self, context: int, text: str) -> None:
        await self._call("system", context=context, text=text)

    async def user(self, context: int, text: str) -> None:
        await self._call("user", context=context, text=text)

    async def assistant(self, context: int, text: str) -> None:
        await self._call("assistant", context=context, text=text)

    async def cue(self, context: int) -> None:
        await self._call("cue", context=context)

    async def seal(self, context: int) -> None:
        await self._call("seal", context=context)

    async def equip_tools(self, context: int, tools: Sequence[str]) -> None:
        await self._call("equip_tools", context=context, tools=list(tools))

    async def answer_tool(self, context: int, name: str, value: str) -> None:
        await self._call("answer_tool", context=context, name=name, value=value)

    async def flush(self, context: int) -> None:
        await self._call("flush", context=context)

    async def forward(self, request: ForwardRequest) -> ForwardOutput:
        output: ForwardOutput = await self._call("forward", request=_in_runs(request, self.model))
        return output

    async def generate(self, request: GenerateRequest) -> RemoteStream:
        return await self._engine.stream(self._number, _in_runs(request, self.model))

    async def create_matcher(self, grammar: GrammarSpec) -> int:
        return int(await self._call("create_matcher", grammar=grammar))

    async def create_tool_matcher(self, tools: Sequence[str]) -> int:
        return int(await self._call("create_tool_matcher", tools=list(tools)))

    async def matcher_mask(self, matcher: int) -> Brle:
        return tuple(await self._call("matcher_mask", matcher=matcher))

    async def matcher_accept(self, matcher: int, tokens: Sequence[int]) -> None:
        await self._call("matcher_accept", matcher=matcher, tokens=list(tokens))

    async def matcher_terminated(self, matcher: int) -> bool:
        return bool(await self._call("matcher_terminated", matcher=matcher))

    async def matcher_reset(self, matcher: int) -> None:
        await self._call("matcher_reset", matcher=matcher)

    async def release_matcher(self, matcher: int) -> None:
        await self._call("release_matcher", matcher=matcher)

    async def create_decoder(self, decode: Decode) -> int:
        return int(await self._call("create_decoder", decode=decode))

    async def decoder_feed(self, decoder: int, tokens: Sequence[int]) -> list[Event]:
        return list(await self._call("decoder_feed", decoder=decoder, tokens=list(tokens)))

    async def decoder_finish(self, decoder: int) -> list[Event]:
        return list(await self._call("decoder_finish", decoder=decoder))

    async def decoder_reset(self, decoder: int) -> None:
        await self._call("decoder_reset", decoder=decoder)

    async def release_decoder(self, decoder: int) -> None:
        await self._call("release_decoder", decoder=decoder)

    async def create_adapter(self, name: str) -> int:
        return int(await self._call("create_adapter", name=name))

    async def lookup_adapter(self, name: str) -> int | None:
        return _maybe(await self._call("lookup_adapter", name=name))

    async def clone_adapter(self, adapter: int, name: str) -> int:
        return int(await self._call("clone_adapter", adapter=adapter, name=name))

    async def remove_adapter(self, adapter: int) -> None:
        await self._call("remove_adapter", adapter=adapter)

    async def lock_adapter(self, adapter: int) -> bool:
        return bool(await self._call("lock_adapter", adapter=adapter))

    async def unlock_adapter(self, adapter: int) -> None:
        await self._call("unlock_adapter", adapter=adapter)

    async def load_adapter(self, adapter: int, path: str) -> None:
        await self._call("load_adapter", adapter=adapter, path=path)

    async def save_adapter(self, adapter: int, path: str) -> None:
        await self._call("save_adapter", adapter=adapter, path=path)

    async def initialize_zo(self, adapter: int, params: ZoParams) -> None:
        await self._call("initialize_zo", adapter=adapter, params=params)

    async def update_zo(
        self, adapter: int, scores: Sequence[float], seeds: Sequence[int], max_sigma: float = 0.0
    ) -> None:
        await self._call("update_zo", adapter=adapter, scores=list(scores), seeds=list(seeds), max_sigma=max_sigma)

    async def close(self) -> None:
        """Free it on the other side; with a lost engine there is nothing to free."""
        if not self._closed and self._engine.channel.open:
            self._closed = True
            await self._call("close")


def _maybe(value: Any) -> int | None:
    return None if value is None else int(value)


def _in_runs(request: Request, model: ModelInfo) -> Request:
    """The wire knows masks as run lengths only."""
    if not isinstance(request.logit_mask, bytes):
        return request
    runs = brle.from_bits(request.logit_mask, model.vocab_size)
    return replace(request, logit_mask=runs or (model.vocab_size,))
