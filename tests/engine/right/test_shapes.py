"""Unusual shapes and page sizes through the whole engine, against eager."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from bakehouse.engine.model import ServedModel
from bakehouse.engine.runner.torch.load import quiet
from bakehouse.engine.session import Session
from bakehouse.engine.spec import ModelSpec
from tests.engine import models
from tests.engine.right.support import TOLERANCE, distributions, eager_logs, some_tokens
from tests.engine.session.support import settled

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "wide heads": ("llama", {"head_dim": 128}),
    "odd heads": ("llama", {"head_dim": 24, "hidden_size": 72, "num_attention_heads": 6, "num_key_value_heads": 3}),
    "one key head": ("llama", {"num_key_value_heads": 1, "intermediate_size": 100}),
    "biases and scaled positions": ("llama", {"attention_bias": True, "mlp_bias": True, "rope_parameters": LLAMA3}),
    "windows in one layer": ("qwen2", {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1}),
    "a window of one": ("mistral", {"sliding_window": 1}),
}


@pytest.mark.parametrize("page_size", [1, 5, 64])
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_and_page_sizes(shape: str, page_size: int, tmp_path: Path) -> None:
    family, changes = SHAPES[shape]
    models.make_model(tmp_path, family, **changes)
    with quiet():
        model: Any = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager", dtype=torch.float32)
    tokens = some_tokens(100)
    spec = {"dtype": "fp32", "device": "cpu", "kv_tokens": 1024, "max_context": 1024, "prefill_chunk": 32}
    served = ServedModel.load(ModelSpec(name="odd", source=str(tmp_path), page_size=page_size, **spec))
    try:
        with Session(served, "ada") as session:
            context = session.create_context()
            cuts = [0, 50, 51, 52, 70, 100]
            parts = [distributions(session, tokens[a:b], context=context) for a, b in pairwise(cuts)]
        assert (torch.cat(parts) - eager_logs(model.eval(), tokens)).abs().max() < TOLERANCE
        settled(served)
    finally:
        served.close()
