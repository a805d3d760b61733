"""The optimiser of zo in a file: its memory by layer. The means are not in it, they are the adapter's own weights."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from bakehouse.engine.adapters.base import ZoParams
from bakehouse.engine.adapters.peft import Delta, read_tensors
from bakehouse.engine.adapters.zo import LayerSite, LayerState, Paths, State
from bakehouse.engine.errors import BadRequest

PARAMS = "zo_config.json"
TENSORS = "zo_state.safetensors"
_SIGMA = "sigma"
_NAMES = Paths.__slots__


def is_there(folder: Path) -> bool:
    return (folder / TENSORS).exists()


def write(folder: Path, state: State) -> None:
    (folder / PARAMS).write_text(json.dumps(asdict(state.params), indent=2) + "\n", encoding="utf-8")
    save_file({name: tensor.cpu().contiguous() for name, tensor in _tensors(state)}, folder / TENSORS)


def _tensors(state: State) -> Iterator[tuple[str, Tensor]]:
    yield _SIGMA, torch.tensor([layer.sigma for layer in state.layers], dtype=torch.float64)
    for layer in state.layers:
        for side, paths in (("down", layer.of_down), ("up", layer.of_up)):
            for name in _NAMES:
                yield f"{layer.site.index}.{side}.{name}", getattr(paths, name)


def read_params(folder: Path) -> ZoParams:
    """Raises `BadRequest` where the file is not what `write` wrote."""
    file = folder / PARAMS
    try:
        return ZoParams(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as problem:
        raise BadRequest.at("path", f"{file}: {problem}") from None


def read(folder: Path, params: ZoParams, sites: Sequence[LayerSite], deltas: Mapping[str, Delta]) -> State:
    """What `write` wrote, with the means from *deltas*, on their device.

    Raises `BadRequest` by the name of what does not fit.
    """
    file = folder / TENSORS
    if set(deltas) != {module for site in sites for module in site.modules}:
        raise BadRequest.at("path", f"{file}: the weights beside it are not those of q, k and v in each layer")
    for module, delta in deltas.items():
        if (delta.rank, delta.alpha) != (params.rank, params.alpha):
            raise BadRequest.at(module, f"{file}: rank and alpha are not those of the optimiser beside it")
    tensors = read_tensors(file)
    sigmas = _tensor(file, tensors, _SIGMA, torch.Size([len(sites)])).tolist()
    layers = (_layer(file, site, sigma, deltas, tensors) for site, sigma in zip(sites, sigmas, strict=True))
    return State(params, tuple(layers))


def _layer(
    file: Path, site: LayerSite, sigma: float, deltas: Mapping[str, Delta], tensors: Mapping[str, Tensor]
) -> LayerState:
    down = torch.cat([deltas[module].down for module in site.modules], 1)
    up = torch.cat([deltas[module].up for module in site.modules], 1)
    paths = [
        Paths(*(_tensor(file, tensors, f"{site.index}.{side}.{name}", mean.shape).to(mean.device) for name in _NAMES))
        for side, mean in (("down", down), ("up", up))
    ]
    return LayerState(site, down, up, sigma, *paths)


def _tensor(file: Path, tensors: Mapping[str, Tensor], name: str, shape: torch.Size) -> Tensor:
    tensor = tensors.get(name)
    if tensor is None or tensor.shape != shape or not torch.isfinite(tensor).all():
        raise BadRequest.at(name, f"{file}: this tensor is missing, or not finite, or not of shape {list(shape)}")
    return tensor
