"""What to serve and how: one frozen value per model, checked when it is made. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

from bakehouse.engine.errors import BadRequest

#: The source that needs no weights, files, network or device.
DUMMY = "dummy"

DTYPES = ("auto", "bf16", "fp16", "fp32", "int8", "int4")
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """One model to serve.

    ``source``: ``dummy``, a local folder in Hugging Face layout, or a hub id. ``dtype`` auto is what the folder says,
    bf16 where the device is good at it; int8 and int4 quantise the linears' weights only, on CPU. ``kv_bytes`` or
    ``kv_tokens`` is the budget of the KV pool, at most one of them; with neither it is a share of the free memory.
    ``max_context`` None: the model's own. ``seed`` is of the dummy's pseudo-weights. The last group bounds one step
    and what the engine keeps.
    """

    name: str
    source: str
    dtype: str = "auto"
    device: str = "auto"
    page_size: int = 16
    kv_bytes: int | None = None
    kv_tokens: int | None = None
    max_context: int | None = None
    seed: int = 0

    max_step_tokens: int = 2048
    max_step_rows: int = 512
    prefill_chunk: int = 512
    max_contexts: int = 16384
    max_adapters: int = 16
    max_adapter_rank: int = 64
    salt_per_owner: bool = False
    prefix_cache: bool = True

    def __post_init__(self) -> None:
        for field in ("name", "source"):
            if not isinstance(getattr(self, field), str) or not getattr(self, field).strip():
                raise BadRequest.at(field, "must be a non-empty text")
        _one_of("dtype", self.dtype, DTYPES)
        _one_of("device", self.device, DEVICES)
        for field in _POSITIVE:
            _at_least_one(field, getattr(self, field))
        for field in ("kv_bytes", "kv_tokens", "max_context"):
            if getattr(self, field) is not None:
                _at_least_one(field, getattr(self, field))
        if self.kv_bytes is not None and self.kv_tokens is not None:
            raise BadRequest.at("kv_tokens", "give the KV budget as kv_bytes or as kv_tokens, not as both")
        if not isinstance(self.seed, int) or isinstance(self.seed, bool):
            raise BadRequest.at("seed", f"must be an integer, not {self.seed!r}")

    @property
    def is_dummy(self) -> bool:
        return self.source == DUMMY


_POSITIVE = (
    "page_size",
    "max_step_tokens",
    "max_step_rows",
    "prefill_chunk",
    "max_contexts",
    "max_adapters",
    "max_adapter_rank",
)


def _one_of(field: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise BadRequest.at(field, f"must be one of {', '.join(choices)}, not {value!r}")


def _at_least_one(field: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadRequest.at(field, f"must be an integer of 1 or more, not {value!r}")
