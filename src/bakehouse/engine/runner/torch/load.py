"""From a folder or a hub id to a model of transformers, every reason to refuse told with the file's name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.utils import logging

from bakehouse.engine.errors import BadRequest, ModelRefused
from bakehouse.engine.runner.torch import attention
from bakehouse.engine.spec import ModelSpec

# What transformers offers without types.
_logging: Any = logging
_auto_model: Any = AutoModelForCausalLM
_causal_models: Any = MODEL_FOR_CAUSAL_LM_MAPPING

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_INDEX = "model.safetensors.index.json"
_WEIGHTS = "model.safetensors"
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
#: Rotary embeddings whose frequencies hang on the longest sequence of the batch, so that neighbours would matter.
_LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")


def find_folder(spec: ModelSpec) -> Path:
    """The folder of *spec*'s source, fetched from the hub where it is an id. Raises `ModelRefused`."""
    path = Path(spec.source).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise ModelRefused(f"{path} is not a folder; a model is a folder with config.json and safetensors files")
    if _HUB_ID.fullmatch(spec.source):
        return _fetch(spec.source)
    raise ModelRefused(f"{path} does not exist, and {spec.source!r} is no hub id (organisation/name)")


def _fetch(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
    try:
        return Path(snapshot_download(hub_id, allow_patterns=wanted))
    except Exception as failed:  # the hub's client has many errors and no common root
        raise ModelRefused(f"{hub_id} is no local folder, and the hub did not give it: {failed}") from failed


def read_config(folder: Path) -> Any:
    """The configuration in *folder*, of an architecture that could be run. Loads no weights. Raises `ModelRefused`."""
    file = folder / "config.json"
    if not file.is_file():
        raise ModelRefused(f"{file} is missing: {folder} is not a model in Hugging Face layout")
    try:
        raw = json.loads(file.read_text("utf-8"))
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (ValueError, KeyError, OSError, TypeError) as broken:
        raise ModelRefused(f"{file} cannot be read: {_first_line(broken)}") from broken
    check_config(config, raw, file)
    return config


def check_config(config: Any, raw: dict[str, Any], file: Path) -> None:
    name = ", ".join(raw.get("architectures") or ()) or config.model_type
    if config.is_encoder_decoder:
        raise ModelRefused(f"{file}: {name} is an encoder-decoder; only decoder-only models are run")
    if type(config) not in _causal_models:
        raise ModelRefused(f"{file}: {name} is not a causal language model of transformers")
    if not _causal_models[type(config)]._supports_attention_backend:
        raise ModelRefused(f"{file}: {name} does not go through the attention interface, so it cannot use paged KV")
    if not isinstance(getattr(config.get_text_config(), "max_position_embeddings", None), int):
        raise ModelRefused(f"{file}: {name} names no longest context (max_position_embeddings)")
    if raw.get("quantization_config") is not None:
        method = raw["quantization_config"].get("quant_method", "quantised")
        raise ModelRefused(f"{file}: the weights are stored as {method}; give a folder with bf16, fp16 or fp32 weights")
    for rope in _rope_types(config.get_text_config()):
        if rope in _LENGTH_DEPENDENT_ROPE:
            raise ModelRefused(
                f"{file}: rope_type {rope} changes with the longest sequence of a batch, so results would depend on "
                "what else runs; remove it from the file to run within the original length"
            )


def _rope_types(config: Any) -> list[str]:
    parameters = getattr(config, "rope_parameters", None) or {}
    nested = [value for value in parameters.values() if isinstance(value, dict)]
    return [str(value.get("rope_type", "default")) for value in (nested or [parameters])]


def check_weights(folder: Path) -> None:
    """Are all files there, and readable? Reads headers only. Raises `ModelRefused` with the file's name."""
    index = folder / _INDEX
    if index.is_file():
        try:
            weight_map: dict[str, str] = json.loads(index.read_text("utf-8"))["weight_map"]
        except (ValueError, KeyError) as broken:
            raise ModelRefused(f"{index} cannot be read: {broken}") from broken
        for shard in sorted(set(weight_map.values())):
            held = _header(folder / shard, f"{index} names it")
            lost = [name for name, file in weight_map.items() if file == shard and name not in held]
            if lost:
                raise ModelRefused(f"{folder / shard} holds no tensor {lost[0]}, which {index} says it does")
    else:
        _header(folder / _WEIGHTS, "only safetensors are read")


def _header(file: Path, why: str) -> set[str]:
    if not file.is_file():
        raise ModelRefused(f"{file} is missing ({why})")
    try:
        with safe_open(file, framework="pt") as opened:
            return set(opened.keys())
    except (SafetensorError, OSError) as broken:
        raise ModelRefused(f"{file} cannot be read: {broken}") from broken


def choose_device(spec: ModelSpec) -> torch.device:
    if spec.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if spec.device == "cuda" and not torch.cuda.is_available():
        raise ModelRefused(f"model {spec.name}: device cuda was asked for, and torch sees no CUDA device")
    return torch.device(spec.device)


def choose_dtype(spec: ModelSpec, config: Any, device: torch.device) -> tuple[torch.dtype, str | None]:
    """Of activations and KV, and how weights are quantised. auto: the folder's, unless this CPU is slow at it."""
    good = torch.bfloat16 if device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32
    if spec.dtype in ("int8", "int4"):
        if device.type != "cpu":
            raise BadRequest.at("dtype", f"{spec.dtype} is of the CPU only; use bf16 on {device.type}")
        return good, spec.dtype
    if spec.dtype != "auto":
        return _DTYPES[spec.dtype], None
    stored = config.dtype or config.get_text_config().dtype or torch.float32
    if stored not in _DTYPES.values():
        raise ModelRefused(f"model {spec.name}: its dtype {stored} is not supported; give dtype bf16, fp16 or fp32")
    if device.type == "cpu" and stored != torch.float32:
        return good, None
    return stored, None


def load_model(folder: Path, config: Any, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """The model with its weights, in evaluation mode, its attention ours. Raises `ModelRefused`."""
    attention.register()
    check_weights(folder)
    with quiet():
        try:
            model, info = _auto_model.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                attn_implementation=attention.NAME,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
        except (ValueError, RuntimeError, OSError, KeyError, ImportError, AttributeError, TypeError) as refused:
            raise ModelRefused(f"{folder} cannot be loaded: {_first_line(refused)}") from refused
    if info["missing_keys"]:
        raise ModelRefused(f"{folder} holds no tensor {sorted(info['missing_keys'])[0]}, which the model needs")
    loaded: nn.Module = model.eval().requires_grad_(False).to(device)
    return loaded


def _first_line(error: BaseException) -> str:
    """What went wrong, without the advice that transformers adds."""
    return str(error).strip().partition("\n")[0]


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bar and the notes that transformers writes to stderr; errors are raised all the same."""
    verbosity = _logging.get_verbosity()
    bar = _logging.is_progress_bar_enabled()
    _logging.set_verbosity_error()
    _logging.disable_progress_bar()
    try:
        yield
    finally:
        _logging.set_verbosity(verbosity)
        if bar:
            _logging.enable_progress_bar()
