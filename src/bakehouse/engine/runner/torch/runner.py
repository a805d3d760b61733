"""The torch runner: one forward pass of a transformers model per step, over our own paged KV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from bakehouse.engine.adapters.base import AdapterStore
from bakehouse.engine.adapters.lora import LoraStore
from bakehouse.engine.errors import ModelRefused
from bakehouse.engine.params import SamplerKind
from bakehouse.engine.plan.step import Readout, ReadoutResult, Segment, StepPlan
from bakehouse.engine.runner.base import ModelShape, Runner
from bakehouse.engine.runner.torch import load
from bakehouse.engine.runner.torch.attention import LayerKV, Now
from bakehouse.engine.runner.torch.batch import Batch
from bakehouse.engine.runner.torch.cuda.capture import CudaCapture
from bakehouse.engine.runner.torch.cuda.graphs import Capture, Limits, Outputs
from bakehouse.engine.runner.torch.cuda.steps import device_steps
from bakehouse.engine.runner.torch.fuse import adopt, find_layers, find_mlps, find_norms
from bakehouse.engine.runner.torch.head import Head, base_name
from bakehouse.engine.runner.torch.kv import KVPool
from bakehouse.engine.runner.torch.linear import replace_linears
from bakehouse.engine.runner.torch.native import Native
from bakehouse.engine.runner.torch.native import load as load_native
from bakehouse.engine.runner.torch.probe import LayerFacts, probe
from bakehouse.engine.sampling.torch import TorchSampler
from bakehouse.engine.spec import ModelSpec

#: Masks are compared with ours up to this position.
_HORIZON = 131_072


def create(spec: ModelSpec) -> TorchRunner:
    """Load *spec*'s model. Raises `ModelRefused`."""
    return create_with(spec, load_native())


def create_with(spec: ModelSpec, native: Native | None) -> TorchRunner:
    """`create`, with these native kernels or with none."""
    folder = load.find_folder(spec)
    config = load.read_config(folder)
    device = load.choose_device(spec)
    dtype, quantise = load.choose_dtype(spec, config, device)
    model = load.load_model(folder, config, dtype, device)
    try:
        return TorchRunner(spec, config, model, dtype, device, quantise, native if device.type == "cpu" else None)
    except ModelRefused as refused:
        raise ModelRefused(f"{folder / 'config.json'}: {type(model).__name__} cannot be run: {refused}") from refused


@dataclass(slots=True)
class Forwarded:
    """Of one step: final hidden states of the rows that are read, one each, and logits of those that are sampled."""

    hidden: Tensor
    logits: Tensor


class TorchRunner(Runner):
    """``linears`` are all that can carry an adapter; ``adapters``, where set, is told of each step before it runs."""

    def __init__(
        self,
        spec: ModelSpec,
        config: Any,
        model: Any,
        dtype: torch.dtype,
        device: torch.device,
        quantise: str | None,
        native: Native | None,
    ) -> None:
        text = config.get_text_config()
        longest = min(spec.max_context or text.max_position_embeddings, text.max_position_embeddings)
        self.base: nn.Module = getattr(model, base_name(model))
        facts = probe(self.base, text.num_hidden_layers, min(text.max_position_embeddings, _HORIZON), device)
        embedding = model.get_input_embeddings()
        self.linears = replace_linears(model, quantise, native)
        self._head = Head(model)
        self._dtype = dtype
        self._device = device
        self._now = Now()
        self.layers = [LayerKV(fact.shape, fact.window, self._now) for fact in facts]
        for fact, layer in zip(facts, self.layers, strict=True):
            fact.module.__dict__["paged"] = layer
        #: Where every layer has a decode kernel; else attention is torch's, and modules stay as they are.
        self.native = native if native is not None and all(_decodes(native, fact, dtype) for fact in facts) else None
        for layer in self.layers:
            layer.native = self.native
        shapes = [fact.shape for fact in facts]
        self._prefills = self.native is not None and all(self.native.prefills(dtype, s.key_dim) for s in shapes)
        self._slot_bytes = max(fact.shape.stride for fact in facts) * dtype.itemsize
        self._no_mask = torch.zeros(1, 1, 1, 1, dtype=dtype, device=device)
        self._pool: KVPool | None = None
        self._sampler = TorchSampler()
        self.adapters: AdapterStore | None = LoraStore(
            self.linears,
            dtype=dtype,
            device=device,
            capacity=spec.max_adapters,
            max_rank=spec.max_adapter_rank,
            base=spec.source,
            seed=spec.seed,
        )
        self.shape = ModelShape(
            architecture=type(model).__name__,
            vocab_size=model.vocab_size if isinstance(getattr(model, "vocab_size", None), int) else text.vocab_size,
            hidden_size=embedding.embedding_dim,
            layers=len(facts),
            max_context=longest,
            page_size=spec.page_size,
            page_bytes=sum(fact.shape.stride for fact in facts) * spec.page_size * dtype.itemsize,
            dtype=quantise or {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(dtype, "fp32"),
            device=str(device),
        )
        self.device_steps = device_steps(self.layers, spec.page_size, device)
        if self.native is not None:
            self._fuse(self.native, {fact.module: layer for fact, layer in zip(facts, self.layers, strict=True)})
        if self.device_steps is not None:
            self.use_graphs(CudaCapture(), min(spec.max_step_rows, spec.max_step_tokens))

    def use_graphs(self, capture: Capture, rows: int) -> None:
        """Run steps that only decode, up to so many *rows*, as *capture* makes them."""
        assert self.device_steps is not None
        limits = Limits(rows, self.shape.max_context, self.shape.page_size)
        self.device_steps.use_graphs(capture, limits, self._now, self._batch(StepPlan()), self._run_base, self._head)

    def _fuse(self, native: Native, layers: dict[nn.Module, LayerKV]) -> None:
        """Put faster modules in place, each tried in a prefill and in a decode over a pool of its own."""
        each = -(-4 // self.shape.page_size)  # pages of four tokens
        one, other = range(each), range(each, 2 * each)
        self.allocate(2 * each)
        first = StepPlan([*range(3, 6), *range(7, 9)], [0, 1, 2, 0, 1])
        first.segments = [Segment(0, 3, 0, one), Segment(3, 2, 0, other)]
        second = StepPlan([3, 4], [3, 2], [Segment(0, 1, 3, one), Segment(1, 1, 2, other)])

        def run(plan: StepPlan, done: Callable[[], None]) -> None:
            self._now.batch = self._batch(plan)
            self._states(plan)
            done()
            self._now.clear()

        runs = [partial(run, first), partial(run, second)]
        for find in (find_norms, find_mlps, partial(find_layers, layers=layers)):
            adopt(find(self.base, native), runs)
        self._pool = None

    def allocate(self, pages: int) -> None:
        shapes = [layer.shape for layer in self.layers]
        self._pool = KVPool(shapes, pages, self.shape.page_size, self._dtype, self._device)
        for layer, rows in zip(self.layers, self._pool.layers, strict=True):
            layer.pool = rows

    @torch.inference_mode()
    def forward(self, plan: StepPlan) -> Forwarded:
        assert self._pool is not None, "allocate comes before the first step"
        if plan.copies:
            self._pool.copy(plan.copies)
        if self.adapters is not None:
            self.adapters.begin(plan)
        if self.device_steps is not None and (outputs := self.device_steps.decode(plan)) is not None:
            return self._pick(outputs, plan.readouts)
        self._now.batch = self._batch(plan)
        try:
            states = self._states(plan)
        finally:
            self._now.clear()
        return self._read(states, plan.readouts)

    def _batch(self, plan: StepPlan) -> Batch:
        native = self.native is not None
        size = self.shape.page_size
        batch = Batch(plan, size, self._slot_bytes, self._dtype, self._device, native, self._prefills)
        return batch if self.device_steps is None else self.device_steps.attend(batch, plan)

    def _states(self, plan: StepPlan) -> Tensor:
        """Final, normalised hidden states ``[rows, hidden]``."""
        tokens, positions = (torch.tensor(ids, device=self._device) for ids in (plan.tokens, plan.positions))
        return self._run_base(tokens, positions)

    def _run_base(self, tokens: Tensor, positions: Tensor) -> Tensor:
        output = self.base(
            input_ids=tokens[None],
            position_ids=positions[None],
            attention_mask=self._no_mask,
            use_cache=False,
        )
        states: Tensor = output.last_hidden_state[0]
        return states

    def _read(self, states: Tensor, readouts: Sequence[Readout]) -> Forwarded:
        hidden = states.index_select(0, self._indices([readout.row for readout in readouts]))
        wanted = [index for index, readout in enumerate(readouts) if not _is_embedding(readout)]
        rows = hidden if len(wanted) == len(readouts) else hidden.index_select(0, self._indices(wanted))
        return Forwarded(hidden, self._head(rows))

    def _pick(self, outputs: Outputs, readouts: Sequence[Readout]) -> Forwarded:
        """What `_read` gives, where all rows have logits already."""
        rows = [readout.row for readout in readouts]
        sampled = [readout.row for readout in readouts if not _is_embedding(readout)]
        hidden, logits = outputs
        whole = list(range(len(hidden)))
        return Forwarded(
            hidden if rows == whole else hidden.index_select(0, self._indices(rows)),
            logits if sampled == whole else logits.index_select(0, self._indices(sampled)),
        )

    def _indices(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=self._device)

    @torch.inference_mode()
    def sample(self, forwarded: Any, readouts: Sequence[Readout]) -> list[ReadoutResult]:
        return self._sampler.sample(forwarded.logits, forwarded.hidden, readouts)

    def close(self) -> None:
        """Give the weights and the pool back to the device."""
        self._pool = None
        for layer in self.layers:
            layer.pool = None
        self.base = nn.Identity()
        self.linears = []
        self.adapters = None
        self.device_steps = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def _decodes(native: Native, fact: LayerFacts, dtype: torch.dtype) -> bool:
    shape = fact.shape
    return shape.key_dim == shape.value_dim and native.decodes(dtype, fact.group, shape.key_dim)


def _is_embedding(readout: Readout) -> bool:
    return readout.sampler.kind is SamplerKind.EMBEDDING
