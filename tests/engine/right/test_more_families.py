"""Architectures beyond the named ones: run as transformers runs them, or refused by name before the first step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bakehouse.engine.errors import ModelRefused
from bakehouse.engine.model import ServedModel
from bakehouse.engine.spec import ModelSpec
from tests.engine import models
from tests.engine.right.support import TOLERANCE, Open, distributions, eager_logs, some_tokens

#: Learned positions, another head of the class, parallel blocks, layers without positions, windows in some layers.
RUN = ["gpt2", "gpt_neox", "opt", "gpt_bigcode", "phi", "starcoder2", "cohere2", "smollm3", "olmo3", "glm4", "nemotron"]


@pytest.mark.parametrize("family", RUN)
def test_it_is_what_eager_gives(family: str, open_: Open, eager: Callable[[str], Any]) -> None:
    session, tokens = open_(family), some_tokens(90)
    context = session.create_context()
    ours = [distributions(session, tokens[:50], context=context), distributions(session, tokens[50:], context=context)]
    wanted = eager_logs(eager(family), tokens)
    assert (ours[0] - wanted[:50]).abs().max() < TOLERANCE
    assert (ours[1] - wanted[50:]).abs().max() < TOLERANCE


#: Keys that stand for blocks of tokens; recurrent layers; a mask that sees both ways; sparse attention.
REFUSED = {
    "deepseek_v4": "one key per token",
    "recurrent_gemma": "RecurrentGemmaForCausalLM",
    "mamba": "MambaForCausalLM",
    "bert": "neither causal nor a sliding window",
    "diffllama": "DiffLlamaForCausalLM",
}


@pytest.mark.parametrize("family", REFUSED)
def test_it_is_refused_by_name(family: str, tmp_path: Path) -> None:
    folder = models.make_model(tmp_path / family, family)
    with pytest.raises(ModelRefused, match=REFUSED[family]) as refused:
        ServedModel.load(ModelSpec(name=family, source=str(folder), dtype="fp32", device="cpu"))
    assert "config.json" in str(refused.value)
