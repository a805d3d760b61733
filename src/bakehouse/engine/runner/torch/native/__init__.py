"""Kernels in C for the CPU, compiled on the machine that runs them. Without a compiler torch does the work."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

_log = logging.getLogger(__name__)
_SOURCES = ("common.h", "layer.c", "decode.c", "prefill.c", "product.c", "step.c")
_FLAGS = (
    "-O3",
    "-march=native",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=fast",
    "-fopenmp",
    "-fPIC",
    "-shared",
    "-Wno-psabi",
)
_TYPES = {torch.float32: 0, torch.bfloat16: 1}
#: Kinds of weights that `Native.product` reads.
KINDS = {"bf16": 0, "int8": 1, "int4": 2}
#: Activations that `Native.gate` knows, by the name transformers gives them.
ACTS = {"silu": 0, "gelu_pytorch_tanh": 1}

_P, _I, _D = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
_SIGNATURES = {
    "bh_norm": (_I, _P, _P, _P, _P, _I, _I, _D, _I),
    "bh_gate": (_I, _I, _P, _P, _I, _I, _I),
    "bh_rotate": (_I, _P, _P, _P, _I, _P, _P, _P, _P, _P, _I, _I, _I, _I, _D, _I),
    "bh_decode": (_I, _I, _I, _P, _P, _I, _P, _P, _P, _P, _P, _P, _P, _I, _I, _I, _D, _D, _I),
    "bh_layer": (_P, _P, _P),
    "bh_prefill": (_I, _I, _P, _P, _I, _P, _P, _I, _I, _I, _P, _I, _I, _D, _D, _I),
    "bh_product": (_I, _P, _P, _P, _P, _P, _I, _I, _I, _I),
}


@cache
def load() -> Native | None:
    """The kernels, compiled once and kept in the user's cache; None, with a log line, where they cannot be."""
    try:
        return Native(_build())
    except (OSError, subprocess.SubprocessError) as failed:
        detail = (
            failed.stderr.decode(errors="replace")[-500:] if isinstance(failed, subprocess.CalledProcessError) else ""
        )
        _log.warning(
            "no native kernels, torch's own are used: %s %s", failed, detail, extra={"action": "engine.native"}
        )
        return None


def _build() -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise OSError("there is no C compiler")
    folder = Path(__file__).parent
    name = hashlib.sha256(
        b"\0".join([*((folder / source).read_bytes() for source in _SOURCES), _machine()])
    ).hexdigest()
    kept = _cache() / f"native-{name[:24]}.so"
    if kept.is_file():
        return kept
    with tempfile.TemporaryDirectory(dir=kept.parent) as workplace:
        made = Path(workplace) / "native.so"
        sources = [str(folder / source) for source in _SOURCES if source.endswith(".c")]
        linked = ["-Wl,--as-needed", *_torch_threads(), "-lm"]
        subprocess.run(
            [compiler, *_FLAGS, "-o", str(made), *sources, *linked], check=True, capture_output=True, timeout=300
        )
        made.replace(kept)
    return kept


def _torch_threads() -> list[str]:
    """The OpenMP library that torch brings: two of them in one process would fight for the processors."""
    inside = Path(torch.__file__).parent
    return [str(found) for found in sorted([*inside.glob("lib/libgomp*"), *inside.glob("../torch.libs/libgomp*")])]


def _cache() -> Path:
    folder = Path.home() / ".cache" / "bakehouse"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def _machine() -> bytes:
    """What the compiled code hangs on beside the sources: the processor's abilities and the flags."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = [platform.processor()]
    abilities = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return f"{platform.machine()} {abilities} {_FLAGS} {_torch_threads()}".encode()


def pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


class Native:
    """The kernels by name. Tensors are contiguous, on the CPU, of float32 or bfloat16; sizes are not checked again."""

    def __init__(self, library: Path) -> None:
        loaded = ctypes.CDLL(str(library))
        for name, arguments in _SIGNATURES.items():
            function = getattr(loaded, name)
            function.argtypes = arguments
            function.restype = ctypes.c_int64 if name in ("bh_decode", "bh_prefill", "bh_product") else None
        self.layer = loaded.bh_layer
        self._norm, self._gate, self._rotate = loaded.bh_norm, loaded.bh_gate, loaded.bh_rotate
        self._decode, self._prefill, self._product = loaded.bh_decode, loaded.bh_prefill, loaded.bh_product
        self.multiplies = self._product(-1, None, None, None, None, None, 0, 0, 0, 1) == 0

    def decodes(self, dtype: torch.dtype, group: int, dim: int) -> bool:
        """Is there a decode kernel for this shape?"""
        kind = _TYPES.get(dtype, -1)
        none = (None,) * 7
        return bool(self._decode(kind, group, dim, None, None, 0, *none, 0, 1, 16, 1.0, 0.0, 1) == 0)

    def prefills(self, dtype: torch.dtype, dim: int) -> bool:
        """Is there a prefill kernel for this shape?"""
        nothing = (None, None, 0, None, None, 0, 0, 0, None)
        return dtype == torch.bfloat16 and self._prefill(1, dim, *nothing, 0, 16, 1.0, 0.0, 1) == 0

    def norm(self, x: Tensor, weight: Tensor, eps: float, residual: Tensor | None = None) -> Tensor:
        """RMS norm of the rows of *x*, or of ``residual += x``. *weight* is float32."""
        out = torch.empty_like(x)
        width = weight.shape[0]
        self._norm(
            _TYPES[x.dtype],
            x.data_ptr(),
            pointer(residual),
            weight.data_ptr(),
            out.data_ptr(),
            x.numel() // width,
            width,
            eps,
            torch.get_num_threads(),
        )
        return out

    def gate(self, x: Tensor, act: int) -> Tensor:
        """Of rows ``[gate | up]``: ``act(gate) * up``."""
        rows, width = x.shape[0], x.shape[1] // 2
        out = x.new_empty(rows, width)
        self._gate(_TYPES[x.dtype], act, x.data_ptr(), out.data_ptr(), rows, width, torch.get_num_threads())
        return out

    def rotate(
        self,
        x: Tensor,
        pool: Tensor,
        slots: Tensor,
        cos: Tensor,
        sin: Tensor,
        norms: tuple[Tensor | None, Tensor | None, float],
        heads: tuple[int, int, int],
    ) -> Tensor:
        """Of rows ``[queries | keys | values]``: keys rotated and values to their *slots*, the rotated queries back.

        *cos* and *sin* are float32 ``[rows, dim]``, *heads* the numbers of query and key heads and their dim.
        """
        query_heads, key_heads, dim = heads
        rows = x.shape[0]
        q = x.new_empty(rows, query_heads, dim)
        self._rotate(
            _TYPES[x.dtype],
            x.data_ptr(),
            q.data_ptr(),
            pool.data_ptr(),
            pool.shape[1],
            slots.data_ptr(),
            cos.data_ptr(),
            sin.data_ptr(),
            pointer(norms[0]),
            pointer(norms[1]),
            rows,
            query_heads,
            key_heads,
            dim,
            norms[2],
            torch.get_num_threads(),
        )
        return q

    def decode(
        self,
        query: Tensor,
        pool: Tensor,
        out: Tensor,
        key_heads: int,
        page_size: int,
        reads: tuple[Tensor, Tensor, Tensor, Tensor, Tensor],
        scale: float,
        softcap: float,
        sinks: Tensor | None,
    ) -> None:
        """Attention of single rows into the same rows of *out*.

        *query* and *out* are ``[rows, heads, dim]``. *reads*: the row of each read, all pages (int32), where its pages
        start among them, its first slot and the one after its last. *sinks* is float32, one per query head.
        """
        rows, pages, starts, firsts, stops = reads
        heads, dim = query.shape[1], query.shape[2]
        self._decode(
            _TYPES[query.dtype],
            heads // key_heads,
            dim,
            query.data_ptr(),
            pool.data_ptr(),
            pool.shape[1],
            out.data_ptr(),
            rows.data_ptr(),
            pages.data_ptr(),
            starts.data_ptr(),
            firsts.data_ptr(),
            stops.data_ptr(),
            pointer(sinks),
            rows.shape[0],
            key_heads,
            page_size,
            scale,
            softcap,
            torch.get_num_threads(),
        )

    def prefill(
        self,
        query: Tensor,
        pool: Tensor,
        out: Tensor,
        key_heads: int,
        page_size: int,
        pages: Tensor,
        history: int,
        window: int | None,
        scale: float,
        softcap: float,
        sinks: Tensor | None,
    ) -> None:
        """Causal attention of the rows *query* ``[rows, heads, dim]`` of one sequence, bf16, into *out*.

        *pages* (int32) are the sequence's, the rows are written to the slots after *history* already. Raises
        `MemoryError` where its working space cannot be had.
        """
        rows, heads, dim = query.shape
        failed = self._prefill(
            heads // key_heads,
            dim,
            query.data_ptr(),
            pool.data_ptr(),
            pool.shape[1],
            out.data_ptr(),
            pages.data_ptr(),
            rows,
            history,
            window or 0,
            pointer(sinks),
            key_heads,
            page_size,
            scale,
            softcap,
            torch.get_num_threads(),
        )
        if failed:
            raise MemoryError("no memory to lay out the keys of a prompt")

    def product(
        self, kind: int, x: Tensor, weight: Tensor, scales: Tensor | None, bias: Tensor | None, outputs: int
    ) -> Tensor:
        """``x W^T + b`` for bf16 rows, *weight* in panels as ``product.c`` has them."""
        y = x.new_empty(x.shape[0], outputs)
        self._product(
            kind,
            x.data_ptr(),
            weight.data_ptr(),
            pointer(scales),
            pointer(bias),
            y.data_ptr(),
            x.shape[0],
            x.shape[1],
            outputs,
            torch.get_num_threads(),
        )
        return y
