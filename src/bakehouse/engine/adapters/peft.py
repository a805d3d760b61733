"""LoRA weights as the `peft` library keeps them: a folder of ``adapter_config.json`` and ``adapter_model.safetensors``.

Whatever would change the result and is not built is refused by the name of its field or tensor. Fields that only say
how the adapter was trained are read over.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bakehouse.engine.adapters import folder
from bakehouse.engine.errors import BadRequest, LimitExceeded, NotFound

CONFIG = folder.CONFIG
WEIGHTS = "adapter_model.safetensors"
_PREFIX = "base_model.model."
_TENSOR = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight")

_NAME = re.compile(r"\^?[\w.]+")

#: Fields that leave the result alone once the adapter is trained.
_OF_TRAINING = frozenset(
    {
        *("peft_type", "peft_version", "task_type", "inference_mode", "base_model_name_or_path", "revision"),
        *("auto_mapping", "lora_dropout", "init_lora_weights", "fan_in_fan_out", "loftq_config", "eva_config"),
        *("corda_config", "lora_ga_config", "runtime_config", "megatron_core", "qalora_group_size", "layers_pattern"),
        *("layers_to_transform", "exclude_modules", "ensure_weight_tying"),
    }
)
_READ = frozenset({"r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "target_modules", "bias"})
#: Ways to begin that change the model's own weights: what was trained is a difference to something that is not there.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(slots=True)
class Delta:
    """What one module's output grows by: ``scale * x @ down @ up``; down [in, rank], up [rank, out].

    `peft` names their transposes lora_A and lora_B.
    """

    down: Tensor
    up: Tensor
    alpha: float
    rslora: bool = False

    @property
    def rank(self) -> int:
        return self.down.shape[1]

    @property
    def scale(self) -> float:
        """alpha / rank, or alpha / sqrt(rank) (Kalajdzievski 2023, arXiv 2312.03732) where it is rank-stabilised."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)


#: Module name to (input width, output width), of every module that can carry a delta.
Shapes = Mapping[str, tuple[int, int]]


def read(path: Path, shapes: Shapes, max_rank: int) -> dict[str, Delta]:
    """The folder's deltas by module, on the CPU, in the file's dtype.

    Raises `NotFound` where a file is missing, `LimitExceeded` for a rank above *max_rank*, `BadRequest` for all that is
    not supported or does not fit.
    """
    config = _config(path)
    tensors = _tensors(path)
    deltas = {module: _delta(path, config, module, sides, shapes) for module, sides in _pairs(path, tensors).items()}
    for module, delta in deltas.items():
        if delta.rank > max_rank:
            raise LimitExceeded(
                f"{path / WEIGHTS}: {module} has rank {delta.rank}, this engine takes {max_rank}", field="r"
            )
    _check_targets(path, config, deltas)
    return deltas


def _config(path: Path) -> dict[str, Any]:
    file = path / CONFIG
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFound(f"{file}: no such file; an adapter is a folder that holds {CONFIG} and {WEIGHTS}") from None
    except (OSError, ValueError) as problem:
        raise BadRequest.at("path", f"{file}: {problem}") from None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise BadRequest.at("peft_type", f"{file} is not of type LORA")
    _check_fields(file, config)
    return config


def _check_fields(file: Path, config: dict[str, Any]) -> None:
    if config.get("bias", "none") != "none":
        raise BadRequest.at("bias", f"{file}: adapters that train biases are not supported")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.startswith(_CHANGES_BASE):
        raise BadRequest.at("init_lora_weights", f"{file}: {start} changes the base weights; convert it to plain LoRA")
    for name, value in config.items():
        if value and name not in _OF_TRAINING | _READ:
            raise BadRequest.at(name, f"{file}: {name}={value!r} is not supported; plain LoRA is")
    for name, rank in {"r": config.get("r"), **_pattern(file, config, "rank_pattern")}.items():
        if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
            raise BadRequest.at(name, f"{file}: must be an integer of 1 or more, not {rank!r}")
    for name, alpha in {"lora_alpha": config.get("lora_alpha"), **_pattern(file, config, "alpha_pattern")}.items():
        if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
            raise BadRequest.at(name, f"{file}: alpha must be a finite number, not {alpha!r}")


def _pattern(file: Path, config: dict[str, Any], name: str) -> dict[str, Any]:
    pattern = config.get(name) or {}
    if not isinstance(pattern, dict):
        raise BadRequest.at(name, f"{file}: must be an object of module names, not {pattern!r}")
    return pattern


def _tensors(path: Path) -> dict[str, Tensor]:
    file = path / WEIGHTS
    if not file.is_file():
        pickled = " (adapter_model.bin is a pickle and is not read)" if (path / "adapter_model.bin").exists() else ""
        raise NotFound(f"{file}: no such file{pickled}")
    return read_tensors(file)


def read_tensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file, on the CPU. Raises `BadRequest` where it is damaged."""
    try:
        with safe_open(file, framework="pt") as opened:
            return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as problem:
        raise BadRequest.at("path", f"{file}: {problem}") from None


def _pairs(path: Path, tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    pairs: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        match = _TENSOR.fullmatch(name)
        if match is None:
            raise BadRequest.at(name, f"{path / WEIGHTS}: this tensor is not a lora_A or lora_B of a linear layer")
        if tensor.dtype not in _FLOATS or tensor.dim() != 2 or not torch.isfinite(tensor).all():
            raise BadRequest.at(name, f"{path / WEIGHTS}: must be a matrix of finite floats")
        pairs.setdefault(match["module"], {})[match["side"]] = tensor
    if not pairs:
        raise BadRequest.at("path", f"{path / WEIGHTS} holds no tensors")
    return pairs


def _delta(path: Path, config: dict[str, Any], module: str, sides: dict[str, Tensor], shapes: Shapes) -> Delta:
    file = path / WEIGHTS
    if module not in shapes:
        raise BadRequest.at(module, f"{file}: the model has no linear layer of this name that can carry an adapter")
    for side in "AB":
        if side not in sides:
            raise BadRequest.at(module, f"{file}: lora_{side} is missing")
    rank = by_pattern(config.get("rank_pattern") or {}, module, config["r"])
    wide, tall = shapes[module]
    for side, shape in (("A", (rank, wide)), ("B", (tall, rank))):
        if tuple(sides[side].shape) != shape:
            raise BadRequest.at(
                f"{module}.lora_{side}", f"{file}: has shape {list(sides[side].shape)}, not {list(shape)}"
            )
    alpha = by_pattern(config.get("alpha_pattern") or {}, module, config["lora_alpha"])
    return Delta(sides["A"].T, sides["B"].T, float(alpha), bool(config.get("use_rslora")))


def by_pattern(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """What the first pattern says that is the end of *module*, from a dot on; one that begins with ``^`` is all of it.

    `peft` takes regular expressions here. Only names are taken by us: a file of a stranger must not keep us busy.
    """
    for pattern, value in patterns.items():
        name = pattern.replace("\\.", ".").removesuffix("$")
        if not _NAME.fullmatch(name):
            raise BadRequest.at(pattern, "of rank_pattern and alpha_pattern only module names are supported")
        if name.lstrip("^") == module or (module.endswith(f".{name}") and not name.startswith("^")):
            return value
    return default


def _check_targets(path: Path, config: dict[str, Any], deltas: Mapping[str, Delta]) -> None:
    """A listed module without weights would be one that `peft` had and we have not."""
    targets = config.get("target_modules")
    for target in targets if isinstance(targets, list) else []:
        if not any(module == target or module.endswith(f".{target}") for module in deltas):
            raise BadRequest.at("target_modules", f"{path / CONFIG} names {target}, for which there are no weights")


def write(folder: Path, deltas: Mapping[str, Delta], base: str) -> None:
    """Config and weights into the existing empty *folder*. ``base``: the name of the model they were made for."""
    ranks = Counter(delta.rank for delta in deltas.values()).most_common(1)[0][0]
    alphas = Counter(delta.alpha for delta in deltas.values()).most_common(1)[0][0]
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": ranks,
        "lora_alpha": _plain(alphas),
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": any(delta.rslora for delta in deltas.values()),
        "use_dora": False,
        "fan_in_fan_out": False,
        "target_modules": sorted(deltas),
        "rank_pattern": {f"^{name}": d.rank for name, d in deltas.items() if d.rank != ranks},
        "alpha_pattern": {f"^{name}": _plain(d.alpha) for name, d in deltas.items() if d.alpha != alphas},
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tensors = {}
    for module, delta in deltas.items():
        tensors[f"{_PREFIX}{module}.lora_A.weight"] = delta.down.T.cpu().contiguous()
        tensors[f"{_PREFIX}{module}.lora_B.weight"] = delta.up.T.cpu().contiguous()
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def _plain(number: float) -> int | float:
    return int(number) if float(number).is_integer() else number


def replace_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """As `folder.replace_folder`; what safetensors cannot write is `BadRequest`, too."""
    folder.replace_folder(path, fill, (OSError, SafetensorError))
