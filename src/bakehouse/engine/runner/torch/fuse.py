"""Faster stand-ins for a model's own modules: norms, gated MLPs, whole decoder layers of the Llama pattern.

A stand-in is matched by the names of a module's parts, and adopted only if it gives what the module gives, on the same
inputs, when the model is loaded. What matches nothing stays as transformers wrote it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bakehouse.engine.runner.torch.attention import Heads, LayerKV, over_pool
from bakehouse.engine.runner.torch.linear import Linear, Member
from bakehouse.engine.runner.torch.native import ACTS, Native
from bakehouse.engine.runner.torch.whole import Steps, Whole


class Unlike(Exception):
    """A stand-in met something at run time that its pattern does not cover. Only while a model is loaded."""


class Norm(nn.Module):
    """RMS norm over the last dimension. *weight* is float32, what the module multiplies by."""

    def __init__(self, native: Native, weight: Tensor, eps: float) -> None:
        super().__init__()
        self._native = native
        self.scale = weight
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return self._native.norm(x.contiguous(), self.scale, self.eps)


class Mlp(nn.Module):
    """``down(act(gate x) * up x)``."""

    def __init__(self, native: Native, gate_up: Linear, down: Linear, act: int) -> None:
        super().__init__()
        self._native = native
        self.act = act
        self.gate_up = gate_up
        self.down = down

    def rows(self, x: Tensor) -> Tensor:
        return self.down.rows(self._native.gate(self.gate_up.rows(x), self.act))

    def forward(self, x: Tensor) -> Tensor:
        return self.rows(x.reshape(-1, x.shape[-1])).view(x.shape)


class Layer(nn.Module):
    """A decoder layer: ``x += attention(norm x)``, then ``x += mlp(norm x)``, in place."""

    def __init__(
        self,
        native: Native,
        kv: LayerKV,
        norms: tuple[Norm, Norm],
        head_norms: tuple[Norm | None, Norm | None],
        qkv: Linear,
        o: Linear,
        mlp: nn.Module,
        scaling: float,
    ) -> None:
        super().__init__()
        self._native = native
        self._kv = kv
        self.before, self.between = norms
        q_norm, k_norm = head_norms
        eps = 0.0 if q_norm is None else q_norm.eps
        self._head_norms = (None if q_norm is None else q_norm.scale, None if k_norm is None else k_norm.scale, eps)
        self.qkv = qkv
        self.o = o
        self.mlp = mlp
        dim = kv.shape.key_dim
        self._heads = (qkv.parts[0].stop // dim, kv.shape.heads, dim)
        self._how = Heads(scaling, None, None)

        self.whole = self._make_whole()

    def _make_whole(self) -> Whole | None:
        mlp = self.mlp
        if not isinstance(mlp, Mlp) or not Whole.fits((self.qkv, self.o, mlp.gate_up, mlp.down)):
            return None
        return Whole(
            self._native,
            (self.qkv, self.o, mlp.gate_up, mlp.down),
            (self.before.scale, self.between.scale, *self._head_norms[:2]),
            (self.before.eps, self.between.eps, self._head_norms[2]),
            self._heads,
            mlp.act,
            self._how.scale,
        )

    def _steps(self, angles: tuple[Tensor, Tensor]) -> Steps | None:
        """What a whole call needs of the step, made by the first layer of each window; None if it cannot be whole."""
        kv = self._kv
        key = (Steps, kv.window)
        if key not in kv.now.shared:
            batch = kv.now.batch
            assert batch is not None
            rotation = kv.now.rotation(angles, self._heads[2])
            fits = rotation is not None and Steps.fits(batch, kv.window)
            kv.now.shared[key] = Steps(batch, kv.window, rotation, self._widths()) if rotation and fits else None
        made: Steps | None = kv.now.shared[key]
        return made

    def _widths(self) -> tuple[int, ...]:
        """Per row of each working space, in the order of the kernel's ``step``."""
        mlp = self.mlp
        assert isinstance(mlp, Mlp)
        hidden, attended, inner = self.qkv.in_features, self.o.in_features, mlp.down.in_features
        return hidden, self.qkv.out_features, attended, attended, 2 * inner, max(inner, hidden)

    def forward(self, hidden_states: Tensor, *, position_embeddings: tuple[Tensor, Tensor], **_: Any) -> Tensor:
        x = hidden_states[0]
        if self.whole is not None and self.whole.ready():
            steps = self._steps(position_embeddings)
            if steps is not None:
                assert self._kv.pool is not None
                self.whole.run(x, self._kv.pool, steps)
                return hidden_states
        normed = self._native.norm(x, self.before.scale, self.before.eps)
        attended = self.o.rows(self._attend(self.qkv.rows(normed), position_embeddings))
        normed = self._native.norm(attended, self.between.scale, self.between.eps, residual=x)
        if isinstance(self.mlp, Mlp):
            x += self.mlp.rows(normed)
        else:
            out = self.mlp(normed[None])
            x += (out[0] if isinstance(out, tuple) else out).view(x.shape)
        return hidden_states

    def _attend(self, qkv: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
        kv = self._kv
        batch = kv.now.batch
        assert batch is not None
        assert kv.pool is not None
        rotation = kv.now.rotation(angles, self._heads[2])
        if rotation is None:
            raise Unlike
        query = self._native.rotate(qkv, kv.pool, batch.slots, *rotation, self._head_norms, self._heads)
        return over_pool(kv, batch, query, self._how).view(qkv.shape[0], -1)


@dataclass(slots=True)
class Candidate:
    """*new* may stand where *old* stands, as child *name* of *parent*."""

    parent: nn.Module
    name: str
    old: nn.Module
    new: nn.Module
    like: bool = True
    seen: bool = False


def find_norms(base: nn.Module, native: Native) -> list[Candidate]:
    return [
        Candidate(parent, name, child, norm)
        for parent, name, child in _children(base)
        if (norm := _norm(child, native)) is not None
    ]


def find_mlps(base: nn.Module, native: Native) -> list[Candidate]:
    return [
        Candidate(parent, name, child, mlp)
        for parent, name, child in _children(base)
        if (mlp := _mlp(child, native)) is not None
    ]


def find_layers(base: nn.Module, native: Native, layers: dict[nn.Module, LayerKV]) -> list[Candidate]:
    """*layers*: what is known of each attention module."""
    return [
        Candidate(parent, name, child, layer)
        for parent, name, child in _children(base)
        if (layer := _layer(child, native, layers)) is not None
    ]


def _children(base: nn.Module) -> list[tuple[nn.Module, str, nn.Module]]:
    return [(parent, name, child) for parent in list(base.modules()) for name, child in parent.named_children()]


def _norm(module: nn.Module, native: Native) -> Norm | None:
    if not type(module).__name__.endswith("RMSNorm"):
        return None
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    weight = getattr(module, "weight", None)
    if not isinstance(eps, float) or not isinstance(weight, Tensor) or weight.dim() != 1 or weight.shape[0] % 16:
        return None
    ones = torch.ones(1, weight.shape[0], dtype=torch.float32)
    scale = module(ones)[0].float() * (1 + eps) ** 0.5
    return Norm(native, scale.contiguous(), eps)


def _mlp(module: nn.Module, native: Native) -> Mlp | None:
    if {name for name, _ in module.named_children()} - {"act_fn", "dropout"} != {"gate_proj", "up_proj", "down_proj"}:
        return None
    gate, down = module.gate_proj, module.down_proj
    config = getattr(module, "config", None)
    act = ACTS.get(str(getattr(config, "hidden_activation", None) or getattr(config, "hidden_act", None)))
    if not isinstance(gate, Member) or not isinstance(down, Linear) or act is None or down.in_features % 16:
        return None
    return Mlp(native, gate.linear, down, act)


def _layer(module: nn.Module, native: Native, layers: dict[nn.Module, LayerKV]) -> Layer | None:
    names = {name for name, _ in module.named_children()}
    if names != {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}:
        return None
    attention: Any = module.self_attn
    kv = layers.get(attention)
    inner = {name for name, _ in attention.named_children()}
    known = {"q_proj", "k_proj", "v_proj", "o_proj"}
    if kv is None or not known <= inner <= known | {"q_norm", "k_norm"} or list(attention.parameters(recurse=False)):
        return None
    norms = [module.input_layernorm, module.post_attention_layernorm]
    head_norms = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
    shape = kv.shape
    if (
        not all(isinstance(norm, Norm) for norm in norms)
        or not isinstance(attention.q_proj, Member)
        or not isinstance(attention.o_proj, Linear)
        or shape.key_dim != shape.value_dim
        or shape.key_dim % 32
        or any(norm is not None and not _of_heads(norm, shape.key_dim) for norm in head_norms)
    ):
        return None
    made = Layer(
        native,
        kv,
        (norms[0], norms[1]),  # type: ignore[arg-type]
        (head_norms[0], head_norms[1]),
        attention.q_proj.linear,
        attention.o_proj,
        module.mlp,  # type: ignore[arg-type]
        float(getattr(attention, "scaling", shape.key_dim**-0.5)),
    )
    for name, value in vars(module).items():
        if not name.startswith("_") and not hasattr(made, name):
            setattr(made, name, value)  # what the model's loop reads of its layers, such as attention_type
    return made


def _of_heads(norm: nn.Module, dim: int) -> bool:
    return isinstance(norm, Norm) and norm.scale.shape[0] == dim


@torch.inference_mode()
def adopt(candidates: Sequence[Candidate], runs: Sequence[Callable[[Callable[[], None]], None]]) -> int:
    """Put those in place that give what their modules give in every one of *runs*; returns how many.

    A run is called with a function that it must call at its end, while the step it made is still on.
    """
    records: dict[int, list[tuple[Any, Any, Any]]] = {}

    def record(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        records.setdefault(id(module), []).append((_cloned(args), _cloned(kwargs), _cloned(output)))

    def compare() -> None:
        for candidate in candidates:
            for args, kwargs, wanted in records.pop(id(candidate.old), ()):
                candidate.seen = True
                candidate.like = candidate.like and _alike(candidate.new, args, kwargs, wanted)

    hooks = [candidate.old.register_forward_hook(record, with_kwargs=True) for candidate in candidates]
    try:
        for run in runs:
            run(compare)
    finally:
        for hook in hooks:
            hook.remove()
    adopted = [candidate for candidate in candidates if candidate.like and candidate.seen]
    for candidate in adopted:
        setattr(candidate.parent, candidate.name, candidate.new)
    return len(adopted)


def _cloned(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, tuple):
        return tuple(_cloned(item) for item in value)
    if isinstance(value, dict):
        return {key: _cloned(item) for key, item in value.items()}
    return value


def _alike(new: nn.Module, args: Any, kwargs: Any, wanted: Any) -> bool:
    if not isinstance(wanted, Tensor):
        return False
    start = args[0].clone() if args and args[0].shape == wanted.shape else torch.zeros_like(wanted)
    try:
        got = new(*args, **kwargs)
    except Unlike:
        return False
    if isinstance(new, Layer):  # the residual stream would hide what the layer adds
        got, wanted = got - start, wanted - start
    error = (got.float() - wanted.float()).norm() / wanted.float().norm().clamp_min(1e-6)
    return bool(error < (1e-4 if wanted.dtype == torch.float32 else 3e-2))
