"""The engine on CUDA. Without a GPU but with triton its kernels run in Triton's interpreter, on small inputs; the tests
that need a device, or are too much for it, are skipped, and say so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

HAS_GPU = torch.cuda.is_available()
HAS_TRITON = find_spec("triton") is not None
if HAS_TRITON and not HAS_GPU:
    os.environ["TRITON_INTERPRET"] = "1"  # read when the kernels are defined

from bakehouse.engine.runner.torch.cuda.graphs import Capture, Outputs  # noqa: E402
from bakehouse.engine.runner.torch.cuda.steps import DeviceSteps  # noqa: E402
from bakehouse.engine.runner.torch.runner import TorchRunner, create, create_with  # noqa: E402
from bakehouse.engine.spec import ModelSpec  # noqa: E402
from tests.engine.tiny import eager, folder, one_thread  # noqa: E402

__all__ = ["eager", "folder", "one_thread"]

PAGES = 67
WHERE = torch.device("cuda" if HAS_GPU else "cpu")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is of the GPU suite; ``device_only`` tests want the device itself."""
    for item in items:
        if not Path(str(item.fspath)).is_relative_to(Path(__file__).parent):
            continue
        item.add_marker(pytest.mark.gpu)
        if not HAS_TRITON:
            item.add_marker(pytest.mark.skip(reason="NOT TESTED: no triton here, neither for a GPU nor interpreted"))
        elif not HAS_GPU and item.get_closest_marker("device_only"):
            item.add_marker(pytest.mark.skip(reason="NOT TESTED: no CUDA device here"))


def run_again(run: Callable[[], Outputs]) -> tuple[Callable[[], None], Outputs]:
    """In the place of a CUDA graph where there is no CUDA: the same calls, results into the same tensors."""
    outputs = run()

    def replay() -> None:
        for held, fresh in zip(outputs, run(), strict=True):
            held.copy_(fresh)

    return replay, outputs


def make_runner(folder: Path, dtype: str = "fp32", graphs: bool = True, capture: Capture = run_again) -> TorchRunner:
    """On the GPU as it comes; else on the CPU with the kernels interpreted and *capture* for graphs."""
    spec = ModelSpec(name="gpu", source=str(folder), dtype=dtype, device=WHERE.type)
    if HAS_GPU:
        runner = create(spec)
    else:
        from bakehouse.engine.runner.torch.cuda.paged import PagedStep

        runner = create_with(spec, None)
        runner.device_steps = DeviceSteps(partial(PagedStep, page_size=runner.shape.page_size), WHERE)
        if graphs:
            runner.use_graphs(capture, 64)
    assert runner.device_steps is not None
    if not graphs:
        runner.device_steps.graphs = None
    runner.allocate(PAGES)
    return runner


@pytest.fixture(scope="session")
def runner(folder: Callable[[str], Path]) -> Iterator[Callable[[str], TorchRunner]]:
    """A family's runner in float32; made once."""
    made: dict[str, TorchRunner] = {}

    def of(family: str) -> TorchRunner:
        if family not in made:
            made[family] = make_runner(folder(family))
        return made[family]

    yield of
    for each in made.values():
        each.close()
