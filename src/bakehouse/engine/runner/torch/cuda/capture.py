"""A run of kernels as a CUDA graph, and what in a run would keep it from being one. Not yet run on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

T = TypeVar("T")
Replay = Callable[[], None]

#: Their answer's shape or value hangs on numbers of the device, so the host must wait for it.
_WAITING = frozenset(
    {
        "aten::_local_scalar_dense",
        "aten::_unique2",
        "aten::argwhere",
        "aten::bincount",
        "aten::equal",
        "aten::is_nonzero",
        "aten::item",
        "aten::masked_select",
        "aten::nonzero",
        "aten::nonzero_numpy",
        "aten::repeat_interleave.Tensor",
        "aten::unique_consecutive",
        "aten::unique_dim",
    }
)
#: They bring a tensor to the device that is made on the host, where a graph would read it again when it is gone.
_FROM_HOST = frozenset({"aten::lift", "aten::lift_fresh", "aten::lift_fresh_copy"})


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the first operation that no graph can hold."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: str | None = None

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if self.found is None and _blocks(func, args, result):
            self.found = str(func)
        return result


def _blocks(func: Any, args: tuple[Any, ...], result: Any) -> bool:
    name = func._schema.name
    if name in _WAITING or f"{name}.{func._overloadname}" in _WAITING or name in _FROM_HOST:
        return True
    if name in ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"):
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    # From one device to another, copied into or made anew.
    given = [arg for arg in args if isinstance(arg, Tensor)]
    between = name in ("aten::_to_copy", "aten::copy_")
    return between and any(arg.device != given[0].device for arg in [*given, result] if isinstance(arg, Tensor))


def blocker(run: Callable[[], object]) -> str | None:
    """The first operation of *run* that no graph can hold, by its name; None where there is none. Runs it once."""
    with _Watch() as watch:
        run()
    found: str | None = watch.found
    return found


class CudaCapture:
    """Makes graphs that share one pool of memory: what one of them returned is overwritten by another's replay."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Callable[[], T]) -> tuple[Replay, T]:
        """What does *run* again, and the tensors that it fills each time. Raises what CUDA raises."""
        here = torch.cuda.current_stream()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(here)
        with torch.cuda.stream(side):
            for _ in range(2):  # kernels are compiled and libraries take their work space now, not in the graph
                run()
        here.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # The outer one puts the stream back where the capture fails, which the inner one does not.
        with torch.cuda.stream(here), torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            result = run()
        return graph.replay, result
