"""One served model, put together: runner, planner, loop, tokenizer, chat format, grammars, adapters."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bakehouse.engine.adapters.table import AdapterTable
from bakehouse.engine.chat.base import ChatFormat
from bakehouse.engine.errors import ModelRefused
from bakehouse.engine.grammar.base import Compiler
from bakehouse.engine.loop import EngineLoop
from bakehouse.engine.memory import free_bytes
from bakehouse.engine.params import ModelInfo
from bakehouse.engine.plan.contexts import Context
from bakehouse.engine.plan.limits import PlanLimits
from bakehouse.engine.plan.planner import Planner
from bakehouse.engine.runner.base import ModelShape, Runner
from bakehouse.engine.runner.create import create_runner
from bakehouse.engine.spec import ModelSpec
from bakehouse.engine.tokenizer.base import Tokenizer

if TYPE_CHECKING:
    from bakehouse.engine.streams import Stream

#: Of the memory that is free once the weights are loaded, so much becomes the KV pool when the spec says nothing.
KV_SHARE = {"cpu": 0.25, "cuda": 0.85}

#: The dummy's pool, in tokens: its KV is a few bytes per token, and no machine's memory should decide on its tests.
DUMMY_TOKENS = 160_000


class ServedModel:
    """What the sessions of one model share. Made on any thread; `close` stops its loop and frees the device."""

    def __init__(
        self,
        spec: ModelSpec,
        runner: Runner,
        tokenizer: Tokenizer,
        chat: ChatFormat,
        grammars: Compiler,
    ) -> None:
        self.spec = spec
        self.runner = runner
        self.tokenizer = tokenizer
        self.chat = chat
        self.grammars = grammars
        shape = runner.shape
        pages = pool_pages(spec, shape)
        runner.allocate(pages)
        self.info = _info(spec, shape, chat, pages)
        store = getattr(runner, "adapters", None)
        self.adapters = None if store is None else AdapterTable(store)
        self.planner = Planner(_limits(spec, shape, pages))
        self.loop = EngineLoop(spec.name, self.planner, runner)
        #: Contexts whose stream has not been read to its end, with the loop's lock held.
        self.streams: dict[Context, Stream] = {}
        self.stream_ids = itertools.count(1)
        self.loop.start()

    @classmethod
    def load(cls, spec: ModelSpec) -> ServedModel:
        """Load and start. Blocks. Raises `ModelRefused`, and `OutOfPages` where the device cannot hold the KV pool."""
        runner = create_runner(spec)
        try:
            return cls(spec, runner, *_texts(spec, runner.shape))
        except BaseException:
            runner.close()
            raise

    def close(self) -> None:
        """Cancel what runs, stop the loop, free the device. May be repeated."""
        self.loop.stop()
        self.runner.close()


def _texts(spec: ModelSpec, shape: ModelShape) -> tuple[Tokenizer, ChatFormat, Compiler]:
    """The tokenizer of *spec*, its chat format, and the compiler of its grammars."""
    from bakehouse.engine.chat.create import create_format
    from bakehouse.engine.grammar.llg import LlgCompiler

    tokenizer, config = _tokenizer(spec, shape)
    chat = create_format(tokenizer, shape.architecture, config)
    return tokenizer, chat, LlgCompiler(tokenizer, chat.stop_tokens)


def _tokenizer(spec: ModelSpec, shape: ModelShape) -> tuple[Tokenizer, dict[str, Any]]:
    """The tokenizer of *spec* and the model's configuration. Raises `ModelRefused` with the file that is wrong."""
    if spec.is_dummy:
        from bakehouse.engine.tokenizer.bytes import ByteTokenizer

        return ByteTokenizer(), {}
    from bakehouse.engine.runner.torch.load import find_folder
    from bakehouse.engine.tokenizer.hf import HFTokenizer

    folder = find_folder(spec)
    # As the files say it: transformers fills in ids of its own where a configuration names none.
    config = {**_json(folder / "config.json"), **_json(folder / "generation_config.json")}
    return HFTokenizer.from_folder(folder, shape.vocab_size), config


def _json(file: Path) -> dict[str, Any]:
    """The object in *file*, empty where there is none. Raises `ModelRefused`."""
    if not file.exists():
        return {}
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ModelRefused(f"{file} is no JSON object: {error}") from error


def pool_pages(spec: ModelSpec, shape: ModelShape) -> int:
    """Pages of the KV pool: what the spec says, else a share of the free memory.

    Raises `ModelRefused` for a pool that cannot hold one context of full length: such a context could never finish.
    """
    if spec.kv_tokens is not None:
        pages = -(-spec.kv_tokens // shape.page_size)
    elif spec.kv_bytes is not None:
        pages = spec.kv_bytes // shape.page_bytes
    elif spec.is_dummy:
        return max(DUMMY_TOKENS, shape.max_context) // shape.page_size + 1
    else:
        pages = int(free_bytes(shape.device) * KV_SHARE[shape.device.split(":")[0]]) // shape.page_bytes
        needed = -(-shape.max_context // shape.page_size)
        if pages < needed:
            raise ModelRefused(
                f"model {spec.name}: one context of {shape.max_context} tokens needs {needed} pages, "
                f"free memory gives {pages}; set max_context, or kv_bytes or kv_tokens"
            )
    if pages < 1:
        raise ModelRefused(f"model {spec.name}: the KV budget holds no page; one takes {shape.page_bytes} bytes")
    return pages


def _limits(spec: ModelSpec, shape: ModelShape, pages: int) -> PlanLimits:
    return PlanLimits(
        page_size=shape.page_size,
        pages=pages,
        max_step_tokens=spec.max_step_tokens,
        max_step_rows=spec.max_step_rows,
        prefill_chunk=spec.prefill_chunk,
        max_contexts=spec.max_contexts,
        salt_per_owner=spec.salt_per_owner,
        prefix_cache=spec.prefix_cache,
    )


def _info(spec: ModelSpec, shape: ModelShape, chat: ChatFormat, pages: int) -> ModelInfo:
    return ModelInfo(
        name=spec.name,
        architecture=shape.architecture,
        family=chat.family,
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        layers=shape.layers,
        max_context=shape.max_context,
        page_size=shape.page_size,
        pages=pages,
        dtype=shape.dtype,
        device=shape.device,
        stop_tokens=chat.stop_tokens,
    )
