"""PEFT folders written by hand, as the `peft` library writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

#: All fields that peft 0.21 writes.
CONFIG: dict[str, Any] = {
    "alora_invocation_tokens": None,
    "alpha_pattern": {},
    "arrow_config": None,
    "auto_mapping": None,
    "base_model_name_or_path": "somebody/model",
    "bias": "none",
    "corda_config": None,
    "ensure_weight_tying": False,
    "eva_config": None,
    "exclude_modules": None,
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "kasa_config": None,
    "layer_replication": None,
    "layers_pattern": None,
    "layers_to_transform": None,
    "loftq_config": {},
    "lora_bias": False,
    "lora_dropout": 0.05,
    "lora_ga_config": None,
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "modules_to_save": None,
    "monteclora_config": None,
    "peft_type": "LORA",
    "peft_version": "0.21.2",
    "qalora_group_size": 16,
    "rank_pattern": {},
    "revision": None,
    "target_parameters": None,
    "task_type": "CAUSAL_LM",
    "trainable_token_indices": None,
    "use_bdlora": None,
    "use_dora": False,
    "use_qalora": False,
    "use_rslora": False,
    "velora_config": None,
}


def random_lora(modules: dict[str, tuple[int, int]], rank: int, seed: int, size: float = 0.1) -> dict[str, Tensor]:
    """Tensors by their names in the file, for *modules* of (inputs, outputs)."""
    random = torch.Generator().manual_seed(seed)
    tensors = {}
    for module, (inputs, outputs) in modules.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = torch.randn(rank, inputs, generator=random) * size
        tensors[f"base_model.model.{module}.lora_B.weight"] = torch.randn(outputs, rank, generator=random) * size
    return tensors


def write_folder(folder: Path, tensors: dict[str, Tensor], *, r: int, lora_alpha: float, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    targets = sorted({name.split(".lora_")[0].rsplit(".", 1)[-1] for name in tensors})
    config = {**CONFIG, "r": r, "lora_alpha": lora_alpha, "target_modules": targets, **changes}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def merge(model: nn.Module, folder: Path) -> None:
    """The folder's LoRA into the weights of *model*, W + alpha / r * B @ A, with nothing of the engine."""
    from safetensors.torch import load_file

    config = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    modules = dict(model.named_modules())
    for name, a in tensors.items():
        if ".lora_A." not in name:
            continue
        path = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        rank = _pattern(config["rank_pattern"], path, config["r"])
        alpha = _pattern(config["alpha_pattern"], path, config["lora_alpha"])
        scale = alpha / (rank**0.5 if config["use_rslora"] else rank)
        with torch.no_grad():
            weight = modules[path].weight
            assert isinstance(weight, Tensor)
            weight += (scale * tensors[name.replace("lora_A", "lora_B")] @ a).to(weight.dtype)


def _pattern(pattern: dict[str, Any], path: str, default: Any) -> Any:
    import re

    return next((value for key, value in pattern.items() if re.match(rf"(.*\.)?({key})$", path)), default)
