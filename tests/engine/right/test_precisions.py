"""bf16, int8 and int4 through the whole engine: company changes no more than rounding does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bakehouse.engine.params import Sampler
from tests.engine.right.support import Open, filled, some_tokens, start

#: Below this distance of the two best logits a difference in rounding may decide between them.
MARGIN = 0.05


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "int8", "int4"])
def test_company_changes_nothing_before_a_close_call(dtype: str, open_: Open, folder: Callable[[str], Path]) -> None:
    """Decision by margin: alone and among 24 others, tokens are equal until the two best were nearly the same."""
    session = open_("qwen3", dtype=dtype)
    prompts = [some_tokens(3 + 7 * number, seed=number) for number in range(12)]

    def read(stream: Any) -> list[tuple[int, float]]:
        entries = [entry for chunk in stream for entry in chunk.logprobs]
        return [(entry.token, entry.top[0][1] - entry.top[1][1]) for entry in entries]

    def begin(prompt: list[int]) -> Any:
        return start(session, filled(session, prompt), max_tokens=50, logprobs=2)

    alone = [read(begin(prompt)) for prompt in prompts]
    hot = Sampler(temperature=1.4, seed=3)
    beside = [start(session, filled(session, some_tokens(40, seed=n)), sampler=hot, max_tokens=80) for n in range(12)]
    together = [read(stream) for stream in [begin(prompt) for prompt in prompts]]
    for stream in beside:
        stream.close()
    equal = 0
    for one, other in zip(alone, together, strict=True):
        for (token, margin), (again, _) in zip(one, other, strict=True):
            if token != again:
                assert margin < MARGIN
                break
        else:
            equal += 1
    assert equal >= 11


@pytest.mark.parametrize(("dtype", "share"), [("bf16", 0.9), ("fp16", 0.95), ("int8", 0.85), ("int4", 0.3)])
def test_it_is_near_the_exact_model(dtype: str, share: float, open_: Open, eager: Callable[[str], Any]) -> None:
    """How often its best token is the exact model's, over what it wrote itself; random weights have flat logits."""
    session, hits, total = open_("llama", dtype=dtype), 0, 0
    for number in range(6):
        prompt = some_tokens(20, seed=number)
        chosen = [t for chunk in start(session, filled(session, prompt), max_tokens=60) for t in chunk.tokens]
        with torch.inference_mode():
            logits = eager("llama")(torch.tensor([prompt + chosen])).logits[0, 19:-1]
        hits += int((logits.argmax(dim=-1) == torch.tensor(chosen)).sum())
        total += len(chosen)
    assert hits / total >= share
