"""What is no model, or none that we run, is refused with one clear line that names the file or the architecture."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from bakehouse.engine.errors import BadRequest, ModelRefused
from bakehouse.engine.runner.create import create_runner
from bakehouse.engine.runner.torch.load import quiet
from bakehouse.engine.spec import ModelSpec
from tests.engine import models

FolderOf = Callable[[str], Path]


def refusal(source: Path | str, **spec: Any) -> str:
    with pytest.raises(ModelRefused) as refused:
        create_runner(ModelSpec(name="m", source=str(source), **spec))
    assert "\n" not in refused.value.detail.strip()
    return refused.value.detail


@pytest.fixture
def copy(folder: FolderOf, tmp_path: Path) -> Path:
    """A folder of a model that may be broken."""
    return Path(shutil.copytree(folder("llama"), tmp_path / "model"))


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_no_folder(tmp_path: Path) -> None:
    assert str(tmp_path / "gone") in refusal(tmp_path / "gone")


def test_a_file(copy: Path) -> None:
    assert "is not a folder" in refusal(copy / "config.json")


def test_no_config(copy: Path) -> None:
    (copy / "config.json").unlink()
    assert str(copy / "config.json") in refusal(copy)


def test_a_broken_config(copy: Path) -> None:
    (copy / "config.json").write_text("{")
    assert str(copy / "config.json") in refusal(copy)


def test_an_unknown_architecture(copy: Path) -> None:
    edit(copy / "config.json", model_type="warpdrive")
    detail = refusal(copy)
    assert str(copy / "config.json") in detail
    assert "warpdrive" in detail


def test_no_weights(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    assert str(copy / "model.safetensors") in refusal(copy)


def test_unreadable_weights(copy: Path) -> None:
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data[: len(data) // 2])
    assert str(copy / "model.safetensors") in refusal(copy)


def in_shards(folder: Path) -> dict[str, str]:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    halves = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, held in halves.items():
        save_file({name: tensors[name] for name in held}, folder / file, metadata={"format": "pt"})
    weight_map = {name: file for file, held in halves.items() for name in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return weight_map


def test_shards_load_and_a_missing_one_is_named(copy: Path) -> None:
    in_shards(copy)
    create_runner(ModelSpec(name="m", source=str(copy), dtype="fp32"))
    (copy / "b.safetensors").unlink()
    assert str(copy / "b.safetensors") in refusal(copy)


def test_a_shard_without_its_tensor(copy: Path) -> None:
    weight_map = in_shards(copy)
    lost = next(name for name, file in weight_map.items() if file == "a.safetensors")
    tensors = load_file(copy / "a.safetensors")
    del tensors[lost]
    save_file(tensors, copy / "a.safetensors", metadata={"format": "pt"})
    detail = refusal(copy)
    assert lost in detail
    assert str(copy / "a.safetensors") in detail


def test_a_missing_tensor(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    assert "model.layers.1.mlp.up_proj.weight" in refusal(copy)


def test_a_tensor_of_another_shape(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    tensors["model.norm.weight"] = torch.ones(63)
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelRefused, match="cannot be loaded"):
        create_runner(ModelSpec(name="m", source=str(copy)))


def test_weights_that_are_stored_quantised(copy: Path) -> None:
    edit(copy / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})
    assert "gptq" in refusal(copy)


@pytest.mark.parametrize("rope", ["dynamic", "longrope"])
def test_length_dependent_rope(copy: Path, rope: str) -> None:
    parameters = {
        "rope_type": rope,
        "rope_theta": 10000.0,
        "factor": 2.0,
        "short_factor": [1.0] * 16,
        "long_factor": [2.0] * 16,
        "original_max_position_embeddings": 64,
    }
    edit(copy / "config.json", rope_parameters=parameters)
    assert rope in refusal(copy)


SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 64, "num_attention_heads": 4}


def bare(folder: Path, model_type: str, **settings: Any) -> Path:
    config = AutoConfig.for_model(model_type, **settings)
    with quiet():
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("model_type", "settings"),
    [
        ("mamba", {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 64, "state_size": 8}),
        ("rwkv", {"hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 64, "attention_hidden_size": 64}),
        ("bloom", {"hidden_size": 64, "n_layer": 2, "n_head": 4, "vocab_size": 64}),
        (
            "qwen3_next",
            {**SMALL, "intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 16, "num_experts": 2}
            | {"num_experts_per_tok": 1, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32}
            | {"layer_types": ["linear_attention", "full_attention"], "linear_num_value_heads": 4}
            | {"linear_num_key_heads": 2, "linear_key_head_dim": 16, "linear_value_head_dim": 16},
        ),
        (
            "lfm2",
            {**SMALL, "intermediate_size": 64, "num_key_value_heads": 2, "layer_types": ["conv", "full_attention"]},
        ),
    ],
)
def test_recurrent_and_other_attention_by_name(tmp_path: Path, model_type: str, settings: dict[str, Any]) -> None:
    folder = bare(tmp_path / model_type, model_type, **settings)
    detail = refusal(folder)
    assert model_type.partition("_")[0] in detail.lower()
    assert str(folder / "config.json") in detail


def test_encoder_decoders_by_name(copy: Path) -> None:
    settings = {"d_model": 64, "num_layers": 2, "num_heads": 4, "vocab_size": 64, "model_type": "t5"}
    (copy / "config.json").write_text(json.dumps({**settings, "architectures": ["T5ForConditionalGeneration"]}))
    assert "T5ForConditionalGeneration is an encoder-decoder" in refusal(copy)


def test_chunked_attention_is_refused(tmp_path: Path) -> None:
    """Llama 4's chunks are neither causal nor a window: taken for one of them, results would be wrong in silence."""
    settings = {**models._SMALL, "head_dim": 16, "num_local_experts": 2, "intermediate_size_mlp": 96}
    settings |= {"attention_chunk_size": 32, "interleave_moe_layer_step": 1, "pad_token_id": None}
    folder = bare(tmp_path / "llama4", "llama4_text", **settings)
    assert "neither causal nor a sliding window" in refusal(folder)


def test_a_device_that_is_not_there(folder: FolderOf) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    assert "cuda" in refusal(folder("llama"), device="cuda")


@pytest.mark.parametrize(
    ("field", "value"),
    [("dtype", "fp8"), ("device", "tpu"), ("page_size", 0), ("kv_tokens", -1), ("name", " "), ("max_context", True)],
)
def test_specs_are_checked_when_made(field: str, value: Any) -> None:
    with pytest.raises(BadRequest) as refused:
        ModelSpec(**{"name": "m", "source": "dummy", field: value})
    assert refused.value.field == field


def test_one_budget_only() -> None:
    with pytest.raises(BadRequest, match="not as both"):
        ModelSpec(name="m", source="dummy", kv_bytes=1, kv_tokens=1)
