"""What is read of a PEFT folder, what is refused and by which name, and that it is written whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bakehouse.engine.adapters import peft
from bakehouse.engine.errors import BadRequest, EngineError, LimitExceeded, NotFound
from tests.engine.adapters.folders import random_lora, write_folder

SHAPES = {"model.layers.0.self_attn.q_proj": (16, 32), "model.layers.1.mlp.down_proj": (48, 16)}
Q, DOWN = SHAPES
PREFIX = "base_model.model."


def read(folder: Path) -> dict[str, peft.Delta]:
    return peft.read(folder, SHAPES, max_rank=8)


def test_rank_alpha_and_scale_of_each_module(tmp_path: Path) -> None:
    tensors = random_lora({Q: SHAPES[Q]}, 4, 0) | random_lora({DOWN: SHAPES[DOWN]}, 2, 1)
    write_folder(tmp_path, tensors, r=4, lora_alpha=8, rank_pattern={"down_proj": 2}, alpha_pattern={"^" + DOWN: 5})
    deltas = read(tmp_path)
    assert (deltas[Q].rank, deltas[Q].scale) == (4, 2.0)
    assert (deltas[DOWN].rank, deltas[DOWN].scale) == (2, 2.5)
    assert torch.equal(deltas[Q].down.T, tensors[f"{PREFIX}{Q}.lora_A.weight"])
    assert torch.equal(deltas[Q].up.T, tensors[f"{PREFIX}{Q}.lora_B.weight"])


def test_rank_stabilised_scale(tmp_path: Path) -> None:
    write_folder(tmp_path, random_lora(SHAPES, 4, 0), r=4, lora_alpha=8, use_rslora=True)
    assert {delta.scale for delta in read(tmp_path).values()} == {4.0}


def test_names_with_an_adapter_name_or_without_prefix_are_understood(tmp_path: Path) -> None:
    tensors = {
        name.removeprefix(PREFIX).replace(".weight", ".default.weight"): tensor
        for name, tensor in random_lora(SHAPES, 4, 0).items()
    }
    write_folder(tmp_path, tensors, r=4, lora_alpha=8)
    assert set(read(tmp_path)) == set(SHAPES)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("use_dora", True),
        ("bias", "all"),
        ("lora_bias", True),
        ("modules_to_save", ["lm_head"]),
        ("layer_replication", [[0, 1]]),
        ("target_parameters", ["experts.gate_up_proj"]),
        ("trainable_token_indices", [1, 2]),
        ("use_qalora", True),
        ("megatron_config", {"a": 1}),
        ("alora_invocation_tokens", [5]),
        ("some_field_of_tomorrow", 3),
        ("init_lora_weights", "pissa_niter_4"),
        ("init_lora_weights", "olora"),
        ("peft_type", "IA3"),
        ("r", 0),
        ("r", "4"),
        ("lora_alpha", None),
        ("lora_alpha", float("nan")),
        ("rank_pattern", {"(a|b)+": 4}),
        ("rank_pattern", [4]),
        ("alpha_pattern", {"q_proj": "x"}),
        ("target_modules", ["q_proj", "v_proj"]),
    ],
)
def test_what_would_change_the_result_is_refused_by_name(tmp_path: Path, field: str, value: Any) -> None:
    write_folder(tmp_path, random_lora(SHAPES, 4, 0), **{"r": 4, "lora_alpha": 8, field: value})
    with pytest.raises(BadRequest) as refused:
        read(tmp_path)
    named = next(iter(value)) if isinstance(value, dict) and field.endswith("_pattern") else field
    assert named in str(refused.value)


def _changed(change: str) -> dict[str, Tensor]:
    tensors = random_lora(SHAPES, 4, 0)
    a, b = f"{PREFIX}{Q}.lora_A.weight", f"{PREFIX}{Q}.lora_B.weight"
    if change == "no B":
        del tensors[b]
    elif change == "shape":
        tensors[b] = tensors[b][:-1].clone()
    elif change == "rank":
        tensors[a], tensors[b] = tensors[a][:3].clone(), tensors[b][:, :3].clone()
    elif change == "nan":
        tensors[a][0, 0] = torch.nan
    elif change == "ints":
        tensors[a] = torch.ones(4, 16, dtype=torch.int32)
    elif change == "module":
        for name in (a, b):
            tensors[name.replace("q_proj", "z_proj")] = tensors.pop(name)
    else:
        tensors[f"{PREFIX}model.embed_tokens.{change}"] = torch.ones(4, 4)
    return tensors


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("no B", f"{Q}: "),
        ("shape", f"{Q}.lora_B"),
        ("rank", f"{Q}.lora_A"),
        ("nan", f"{Q}.lora_A.weight"),
        ("ints", f"{Q}.lora_A.weight"),
        ("module", "z_proj"),
        ("lora_embedding_A", "embed_tokens.lora_embedding_A"),
        ("lora_magnitude_vector", "lora_magnitude_vector"),
        ("modules_to_save.weight", "modules_to_save"),
    ],
)
def test_a_tensor_that_does_not_fit_is_refused_by_name(tmp_path: Path, change: str, named: str) -> None:
    write_folder(tmp_path, _changed(change), r=4, lora_alpha=8, target_modules="all-linear")
    with pytest.raises(BadRequest) as refused:
        read(tmp_path)
    assert named in str(refused.value)


def test_a_rank_above_the_limit_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, random_lora(SHAPES, 9, 0), r=9, lora_alpha=8)
    with pytest.raises(LimitExceeded, match="rank 9"):
        read(tmp_path)


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"adapter_config\.json"):
        read(tmp_path / "nowhere")
    write_folder(tmp_path, random_lora(SHAPES, 4, 0), r=4, lora_alpha=8)
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(BadRequest, match=r"adapter_model\.safetensors"):
        read(tmp_path)
    weights.rename(tmp_path / "adapter_model.bin")
    with pytest.raises(NotFound, match="pickle"):
        read(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(BadRequest, match=r"adapter_config\.json"):
        read(tmp_path)


def test_an_empty_file_is_no_adapter(tmp_path: Path) -> None:
    write_folder(tmp_path, {}, r=4, lora_alpha=8)
    with pytest.raises(BadRequest, match="no tensors"):
        read(tmp_path)


def test_written_and_read_is_the_same(tmp_path: Path) -> None:
    write_folder(tmp_path / "a", random_lora({Q: SHAPES[Q]}, 4, 0), r=4, lora_alpha=8)
    deltas = read(tmp_path / "a")
    deltas[DOWN] = peft.Delta(torch.ones(48, 2), torch.ones(2, 16), alpha=0.5)
    (tmp_path / "b").mkdir()
    peft.write(tmp_path / "b", deltas, "base")
    again = read(tmp_path / "b")
    assert set(again) == set(deltas)
    for name, delta in deltas.items():
        assert torch.equal(again[name].down, delta.down) and torch.equal(again[name].up, delta.up)
        assert (again[name].alpha, again[name].scale) == (delta.alpha, delta.scale)


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    target = write_folder(tmp_path / "a", random_lora(SHAPES, 4, 0), r=4, lora_alpha=8)
    (target / "old").touch()
    before = (target / "adapter_config.json").read_text()

    def fails(folder: Path) -> None:
        (folder / "half").touch()
        raise OSError("no space left on device")

    with pytest.raises(BadRequest, match="no space"):
        peft.replace_folder(target, fails)
    assert (target / "adapter_config.json").read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a"]

    peft.replace_folder(target, lambda folder: (folder / "new").touch())
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_is_no_adapter_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "diary.txt").touch()
    (tmp_path / "file").touch()
    for name in ("notes", "file"):
        with pytest.raises(BadRequest, match="not overwritten"):
            peft.replace_folder(tmp_path / name, lambda folder: None)
    assert (tmp_path / "notes" / "diary.txt").exists()


def test_errors_are_of_the_engine(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EngineError):
        peft.replace_folder(tmp_path / "file" / "inside", lambda folder: None)
    (tmp_path / "adapter_config.json").write_text(json.dumps([1]))
    with pytest.raises(EngineError):
        read(tmp_path)
