"""transformers' own ``generate``: ``python -m benchmarks.engine.transformers_generate FOLDER THREADS DEVICE``, in bf16.

Histories are random numbers in its cache, because what KV holds does not change the time.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from transformers import AutoModelForCausalLM, DynamicCache
from transformers import __version__ as version
from transformers.utils import logging

from benchmarks.engine.device import card, finish, memory
from benchmarks.engine.workers import answer, timed


class Transformers:
    def __init__(self, folder: str, threads: int, device: str) -> None:
        torch.set_num_threads(threads)
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        self.model = model.eval().to(device)
        self.device = device

    @torch.inference_mode()
    def _generate(self, ids: torch.Tensor, tokens: int, cache: DynamicCache | None) -> None:
        self.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            past_key_values=cache,
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        finish(self.device)

    def _ids(self, sequences: int, length: int) -> torch.Tensor:
        return torch.randint(0, self.model.config.vocab_size, (sequences, length), device=self.device)

    def prefill(self, tokens: int) -> float:
        ids = self._ids(1, tokens)
        return tokens / timed(lambda: self._generate(ids, 1, None))

    def decode(self, sequences: int, context: int, tokens: int) -> dict[str, float]:
        ids, cache = self._ids(sequences, context + 1), self._history(sequences, context)
        seconds = timed(lambda: self._generate(ids, tokens, cache))
        return {"rate": sequences * tokens / seconds}

    def _history(self, sequences: int, length: int) -> DynamicCache:
        config, cache = self.model.config, DynamicCache(config=self.model.config)
        shape = (1, config.num_key_value_heads, length, config.head_dim)
        for layer in range(config.num_hidden_layers):
            key, value = (torch.randn(shape, dtype=torch.bfloat16, device=self.device) for _ in range(2))
            cache.update(key.repeat(sequences, 1, 1, 1), value.repeat(sequences, 1, 1, 1), layer)
        return cache


def main() -> None:
    folder, threads, where = sys.argv[1:]
    peer = Transformers(folder, int(threads), where)
    answer(
        {
            "ready": lambda: {"version": version, "card": card(where)},
            "prefill": peer.prefill,
            "decode": peer.decode,
            "memory": lambda: memory(where),
        }
    )


if __name__ == "__main__":
    main()
