"""An engine in this process, in async: the face of `face`, over the sessions of `session`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar
from weakref import WeakKeyDictionary, ref

from bakehouse.engine.adapters.base import ZoParams
from bakehouse.engine.brle import Brle
from bakehouse.engine.errors import BadRequest, NotFound
from bakehouse.engine.face import AsyncEngine, AsyncSession, AsyncStream
from bakehouse.engine.jobs import Promise
from bakehouse.engine.model import ServedModel
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
from bakehouse.engine.session import Session, SessionLimits
from bakehouse.engine.spec import ModelSpec
from bakehouse.engine.streams import Stream

__all__ = ["Engine", "Handle", "HandleStream", "Session", "SessionLimits", "Stream", "ZoParams"]

T = TypeVar("T")


class Engine(AsyncEngine):
    """Several models, a loop and a KV pool each. `start` makes one; from a thread, use `session`."""

    def __init__(self, models: Iterable[ServedModel], limits: SessionLimits | None = None) -> None:
        self._models = {model.spec.name: model for model in models}
        self._limits = limits
        self._bells: WeakKeyDictionary[asyncio.AbstractEventLoop, _Bell] = WeakKeyDictionary()

    @classmethod
    async def start(cls, specs: Iterable[ModelSpec], limits: SessionLimits | None = None) -> Engine:
        """Load all *specs*, one after the other, beside the event loop. Raises `ModelRefused`; none is then left."""
        models: list[ServedModel] = []
        try:
            for spec in specs:
                if any(spec.name == model.spec.name for model in models):
                    raise BadRequest.at("name", f"two models are named {spec.name!r}")
                models.append(await asyncio.to_thread(ServedModel.load, spec))
        except BaseException:
            for model in models:
                model.close()
            raise
        return cls(models, limits)

    async def add(self, spec: ModelSpec) -> None:
        """Load one more model and serve it from then on; the others go on. Raises `ModelRefused`, `BadRequest`."""
        if spec.name in self._models:
            raise BadRequest.at("name", f"a model {spec.name!r} is served already")
        loading = asyncio.ensure_future(asyncio.to_thread(ServedModel.load, spec))
        try:
            model = await asyncio.shield(loading)
        except asyncio.CancelledError:
            loading.add_done_callback(_close_loaded)
            raise
        # Another dictionary, because threads of programs go through this one.
        self._models = {**self._models, spec.name: model}

    async def models(self) -> list[ModelInfo]:
        return self.served()

    def served(self) -> list[ModelInfo]:
        """`models`, for a program that has a thread of its own."""
        return [model.info for model in self._models.values()]

    async def open(self, model: str, owner: str, program: str = "") -> Handle:
        loop = asyncio.get_running_loop()
        bell = self._bells.setdefault(loop, _Bell(loop))
        return Handle(self.session(model, owner, program), bell)

    def session(self, model: str, owner: str, program: str = "", limits: SessionLimits | None = None) -> Session:
        """The same session in blocking form, for a program that has a thread of its own.

        *limits* in place of the engine's own.
        """
        return Session(self._served(model), owner, program, limits or self._limits)

    async def stats(self, model: str) -> dict[str, Any]:
        return self._served(model).loop.stats()

    def trouble(self, patience: float) -> str:
        """What is wrong with a model that will not get better: it gave up, or its step takes more than *patience* s.

        Empty where all is well. Does not block, from any thread.
        """
        return next(filter(None, (model.loop.trouble(patience) for model in self._models.values())), "")

    async def close(self) -> None:
        await asyncio.gather(*(asyncio.to_thread(model.close) for model in self._models.values()))

    def _served(self, model: str) -> ServedModel:
        try:
            return self._models[model]
        except KeyError:
            served = ", ".join(sorted(self._models)) or "none"
            raise NotFound(f"Model '{model}' not found; served are: {served}", field="model") from None


def _close_loaded(loading: asyncio.Future[ServedModel]) -> None:
    if not loading.cancelled() and loading.exception() is None:
        loading.result().close()


class _Bell:
    """Wakes the readers of one event loop: all for whom a step has something, by one call."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = ref(loop)
        self._rung: deque[Callable[[], None]] = deque()

    def ring(self, wake: Callable[[], None]) -> None:
        self._rung.append(wake)

    def flush(self) -> None:
        loop = self._loop()
        # Where the reader's event loop was closed under it, nobody is left to wake.
        with suppress(RuntimeError):
            if loop is not None:
                loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        while self._rung:
            self._rung.popleft()()


class HandleStream(AsyncStream):
    """A `Stream` for one task of one event loop."""

    def __init__(self, stream: Stream, bell: _Bell) -> None:
        self._stream = stream
        self._news = asyncio.Event()
        stream.listen(bell, self._news.set)

    async def __anext__(self) -> Chunk:
        while True:
            self._news.clear()
            if self._stream.ended:
                raise StopAsyncIteration
            chunk = self._stream.poll()
            if chunk is not None:
                return chunk
            await self._news.wait()

    def cancel(self, taken: int | None = None) -> None:
        """Also: *taken*, how many tokens a distant reader took."""
        self._stream.close(taken)
        self._news.set()

    # Of a distant reader, whose chunks `serve` sends on

    def be_distant(self) -> None:
        """What is taken here is only sent on; `report`, `cancel` and `read_out` say what the reader took."""
        self._stream.distant = True

    def report(self, taken: int) -> None:
        self._stream.report(taken)

    def read_out(self) -> None:
        self._stream.read_out()


class Handle(AsyncSession):
    """A `Session` in async. What only touches tables happens at once, without waiting."""

    def __init__(self, session: Session, bell: _Bell) -> None:
        self.model = session.model
        self._session = session
        self._bell = bell

    async def _done(self, promise: Future[T]) -> T:
        """Its value. A task that is cancelled while it waits gives the work up."""
        try:
            return await asyncio.wrap_future(promise)
        except asyncio.CancelledError:
            if isinstance(promise, Promise):
                promise.give_up()
            raise

    # Tokenizer

    async def encode(self, text: str) -> list[int]:
        return self._session.encode(text)

    async def decode(self, tokens: Sequence[int]) -> str:
        return self._session.decode(tokens)

    async def vocabulary(self) -> tuple[list[int], list[bytes]]:
        return self._session.vocabulary()

    async def special_tokens(self) -> tuple[list[int], list[bytes]]:
        return self._session.special_tokens()

    async def split_regex(self) -> str:
        return self._session.split_regex()

    # Contexts

    async def create_context(self, name: str | None = None) -> int:
        return self._session.create_context(name)

    async def lookup_context(self, name: str) -> int | None:
        return self._session.lookup_context(name)

    async def fork_context(self, context: int, name: str | None = None) -> int:
        return self._session.fork_context(context, name)

    async def release_context(self, context: int) -> None:
        self._session.release_context(context)

    async def context_state(self, context: int) -> ContextState:
        return self._session.context_state(context)

    async def append_tokens(self, context: int, tokens: Sequence[int]) -> None:
        self._session.append_tokens(context, tokens)

    async def set_buffer(self, context: int, tokens: Sequence[int]) -> None:
        self._session.set_buffer(context, tokens)

    async def set_cursor(self, context: int, cursor: int) -> None:
        self._session.set_cursor(context, cursor)

    async def reserve_pages(self, context: int, count: int) -> None:
        self._session.reserve_pages(context, count)

    async def release_pages(self, context: int, count: int) -> None:
        self._session.release_pages(context, count)

    async def commit_pages(self, context: int, indices: Sequence[int]) -> None:
        self._session.commit_pages(context, indices)

    # Chat

    async def system(self, context: int, text: str) -> None:
        self._session.system(context, text)

    async def user(self, context: int, text: str) -> None:
        self._session.user(context, text)

    async def assistant(self, context: int, text: str) -> None:
        self._session.assistant(context, text)

    async def cue(self, context: int) -> None:
        self._session.cue(context)

    async def seal(self, context: int) -> None:
        self._session.seal(context)

    async def equip_tools(self, context: int, tools: Sequence[str]) -> None:
        self._session.equip_tools(context, tools)

    async def answer_tool(self, context: int, name: str, value: str) -> None:
        self._session.answer_tool(context, name, value)

    # Running the model

    async def flush(self, context: int) -> None:
        await self._done(self._session.flush(context))

    async def forward(self, request: ForwardRequest) -> ForwardOutput:
        return await self._done(self._session.forward(request))

    async def generate(self, request: GenerateRequest) -> HandleStream:
        if request.grammar is not None:  # Compiling may take long; afterwards the compiler has it in its cache.
            await self._done(self._session.compile(request.grammar))
        return HandleStream(self._session.generate(request), self._bell)

    # Grammars

    async def create_matcher(self, grammar: GrammarSpec) -> int:
        return await self._done(self._session.create_matcher(grammar))

    async def create_tool_matcher(self, tools: Sequence[str]) -> int:
        return await self._done(self._session.create_tool_matcher(tools))

    async def matcher_mask(self, matcher: int) -> Brle:
        return self._session.matcher_mask(matcher)

    async def matcher_accept(self, matcher: int, tokens: Sequence[int]) -> None:
        self._session.matcher_accept(matcher, tokens)

    async def matcher_terminated(self, matcher: int) -> bool:
        return self._session.matcher_terminated(matcher)

    async def matcher_reset(self, matcher: int) -> None:
        self._session.matcher_reset(matcher)

    async def release_matcher(self, matcher: int) -> None:
        self._session.release_matcher(matcher)

    # Decoders

    async def create_decoder(self, decode: Decode) -> int:
        return self._session.create_decoder(decode)

    async def decoder_feed(self, decoder: int, tokens: Sequence[int]) -> list[Event]:
        return self._session.decoder_feed(decoder, tokens)

    async def decoder_finish(self, decoder: int) -> list[Event]:
        return self._session.decoder_finish(decoder)

    async def decoder_reset(self, decoder: int) -> None:
        self._session.decoder_reset(decoder)

    async def release_decoder(self, decoder: int) -> None:
        self._session.release_decoder(decoder)

    # Adapters

    async def create_adapter(self, name: str) -> int:
        return await self._done(self._session.create_adapter(name))

    async def lookup_adapter(self, name: str) -> int | None:
        return self._session.lookup_adapter(name)

    async def clone_adapter(self, adapter: int, name: str) -> int:
        return await self._done(self._session.clone_adapter(adapter, name))

    async def remove_adapter(self, adapter: int) -> None:
        await self._done(self._session.remove_adapter(adapter))

    async def lock_adapter(self, adapter: int) -> bool:
        return self._session.lock_adapter(adapter)

    async def unlock_adapter(self, adapter: int) -> None:
        self._session.unlock_adapter(adapter)

    async def load_adapter(self, adapter: int, path: str) -> None:
        await self._done(self._session.load_adapter(adapter, path))

    async def save_adapter(self, adapter: int, path: str) -> None:
        await self._done(self._session.save_adapter(adapter, path))

    async def initialize_zo(self, adapter: int, params: ZoParams) -> None:
        await self._done(self._session.initialize_zo(adapter, params))

    async def update_zo(
        self, adapter: int, scores: Sequence[float], seeds: Sequence[int], max_sigma: float = 0.0
    ) -> None:
        await self._done(self._session.update_zo(adapter, scores, seeds, max_sigma))

    async def close(self) -> None:
        self._session.close()
