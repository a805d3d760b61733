"""The async face of an engine: the contract of `handle` (in this process) and `remote` (over a socket).

Every call may raise an `EngineError`; what is said of a call is what else it does. Ids of contexts, matchers and
adapters are positive integers that mean something in the session they came from only; an id of another session is
`NotFound`.
Calls on one context take effect in the order in which they were made, also when they are not awaited one by one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any, Self

from bakehouse.engine.adapters.base import ZoParams
from bakehouse.engine.brle import Brle
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


class AsyncStream(ABC):
    """The chunks of one generation, in order; the last one has ``finish``. Iterated once, by one task.

    Its context is busy until the last chunk was taken, an error raised, or `cancel` called.
    """

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self

    @abstractmethod
    async def __anext__(self) -> Chunk:
        """The next chunk. Raises what ended the generation badly, `Cancelled` after `cancel` among it."""

    @abstractmethod
    def cancel(self) -> None:
        """End it soon; its context is cut back to the tokens of the chunks that were taken. Does not block.

        Nothing happens when it has ended.
        """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()


class AsyncSession(ABC):
    """What one program may do with one model. Closing it frees everything of it but the contexts that it named."""

    model: ModelInfo

    # Tokenizer

    @abstractmethod
    async def encode(self, text: str) -> list[int]:
        """Ids of *text*; special tokens in it become their single ids, none is added."""

    @abstractmethod
    async def decode(self, tokens: Sequence[int]) -> str:
        """Text of *tokens*; special tokens are kept, broken UTF-8 becomes U+FFFD."""

    @abstractmethod
    async def vocabulary(self) -> tuple[list[int], list[bytes]]:
        """Every id that stands for something, and its bytes. Megabytes; ask once."""

    @abstractmethod
    async def special_tokens(self) -> tuple[list[int], list[bytes]]:
        """The same of special tokens only."""

    @abstractmethod
    async def split_regex(self) -> str:
        """The pre-tokenizer's regular expression, or an empty string."""

    # Contexts

    @abstractmethod
    async def create_context(self, name: str | None = None) -> int:
        """An empty context. A *name* that is taken goes over to the new one."""

    @abstractmethod
    async def lookup_context(self, name: str) -> int | None:
        """The context of that name of this owner, whichever program left it, or None."""

    @abstractmethod
    async def fork_context(self, context: int, name: str | None = None) -> int:
        """A context that equals this one and goes its own way. `NameTaken` for a name that a live context has."""

    @abstractmethod
    async def release_context(self, context: int) -> None:
        """Free it and its name; a pass of it that is under way is `Cancelled`."""

    @abstractmethod
    async def context_state(self, context: int) -> ContextState: ...

    @abstractmethod
    async def append_tokens(self, context: int, tokens: Sequence[int]) -> None:
        """Put *tokens* at the end of the buffer; nothing runs."""

    @abstractmethod
    async def set_buffer(self, context: int, tokens: Sequence[int]) -> None:
        """Replace the buffer."""

    @abstractmethod
    async def set_cursor(self, context: int, cursor: int) -> None:
        """Cut what was filled since the last committed page to *cursor* tokens."""

    @abstractmethod
    async def reserve_pages(self, context: int, count: int) -> None:
        """Have at least *count* uncommitted pages. Raises `OutOfPages`."""

    @abstractmethod
    async def release_pages(self, context: int, count: int) -> None:
        """Drop the last *count* uncommitted pages and what was filled in them."""

    @abstractmethod
    async def commit_pages(self, context: int, indices: Sequence[int]) -> None:
        """Make full uncommitted pages, named by index, immutable and shared."""

    # Chat: each call appends one whole turn in the model's format to the buffer; nothing runs

    @abstractmethod
    async def system(self, context: int, text: str) -> None: ...

    @abstractmethod
    async def user(self, context: int, text: str) -> None: ...

    @abstractmethod
    async def assistant(self, context: int, text: str) -> None: ...

    @abstractmethod
    async def cue(self, context: int) -> None:
        """The header that opens the assistant's turn."""

    @abstractmethod
    async def seal(self, context: int) -> None:
        """The token that ends a turn, unless the buffer ends with one."""

    @abstractmethod
    async def equip_tools(self, context: int, tools: Sequence[str]) -> None:
        """Declare tools, each as JSON text."""

    @abstractmethod
    async def answer_tool(self, context: int, name: str, value: str) -> None: ...

    # Running the model

    @abstractmethod
    async def flush(self, context: int) -> None:
        """Run all but the last buffered token."""

    @abstractmethod
    async def forward(self, request: ForwardRequest) -> ForwardOutput:
        """One pass. On an error the context is as before."""

    @abstractmethod
    async def generate(self, request: GenerateRequest) -> AsyncStream:
        """Start a generation; errors of the request itself are raised here."""

    # Grammars

    @abstractmethod
    async def create_matcher(self, grammar: GrammarSpec) -> int:
        """A matcher at the start of *grammar*; compiling may take long, and then other calls go on."""

    @abstractmethod
    async def create_tool_matcher(self, tools: Sequence[str]) -> int:
        """A matcher that forces one call of one of *tools*, each JSON text, in the model's format."""

    @abstractmethod
    async def matcher_mask(self, matcher: int) -> Brle:
        """The ids allowed next."""

    @abstractmethod
    async def matcher_accept(self, matcher: int, tokens: Sequence[int]) -> None:
        """Advance. A token that does not fit is `BadRequest`; those before it stay accepted."""

    @abstractmethod
    async def matcher_terminated(self, matcher: int) -> bool: ...

    @abstractmethod
    async def matcher_reset(self, matcher: int) -> None: ...

    @abstractmethod
    async def release_matcher(self, matcher: int) -> None: ...

    # Decoders: the machine behind the events of a generation, for any ids

    @abstractmethod
    async def create_decoder(self, decode: Decode) -> int: ...

    @abstractmethod
    async def decoder_feed(self, decoder: int, tokens: Sequence[int]) -> list[Event]:
        """The events that *tokens* complete, in order."""

    @abstractmethod
    async def decoder_finish(self, decoder: int) -> list[Event]:
        """What was held back and `Done`; the decoder is at its start again."""

    @abstractmethod
    async def decoder_reset(self, decoder: int) -> None: ...

    @abstractmethod
    async def release_decoder(self, decoder: int) -> None: ...

    # Adapters: names are the model's, shared by all owners

    @abstractmethod
    async def create_adapter(self, name: str) -> int: ...

    @abstractmethod
    async def lookup_adapter(self, name: str) -> int | None: ...

    @abstractmethod
    async def clone_adapter(self, adapter: int, name: str) -> int:
        """A new adapter with a copy of the weights."""

    @abstractmethod
    async def remove_adapter(self, adapter: int) -> None: ...

    @abstractmethod
    async def lock_adapter(self, adapter: int) -> bool:
        """Try to be the only one who may change it; ends with `unlock_adapter` or the session."""

    @abstractmethod
    async def unlock_adapter(self, adapter: int) -> None: ...

    @abstractmethod
    async def load_adapter(self, adapter: int, path: str) -> None:
        """Weights from a folder on the engine's machine."""

    @abstractmethod
    async def save_adapter(self, adapter: int, path: str) -> None: ...

    @abstractmethod
    async def initialize_zo(self, adapter: int, params: ZoParams) -> None: ...

    @abstractmethod
    async def update_zo(
        self, adapter: int, scores: Sequence[float], seeds: Sequence[int], max_sigma: float = 0.0
    ) -> None: ...

    @abstractmethod
    async def close(self) -> None:
        """Cancel what runs and free what is held. May be repeated."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class AsyncEngine(ABC):
    """The served models of one engine."""

    @abstractmethod
    async def models(self) -> list[ModelInfo]: ...

    @abstractmethod
    async def open(self, model: str, owner: str, program: str = "") -> AsyncSession:
        """A session of *program* of *owner*. `NotFound` for a model that is not served."""

    @abstractmethod
    async def stats(self, model: str) -> dict[str, Any]:
        """Counters since the start and gauges of now, as numbers by name."""

    @abstractmethod
    async def close(self) -> None:
        """Stop; what runs is `Cancelled`. May be repeated."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
