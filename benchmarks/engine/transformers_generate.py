"""transformers' own ``generate``: ``python -m benchmarks.engine.transformers_generate FOLDER THREADS``, in bf16.

Histories are random numbers in its cache, because what KV holds does not change the time.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from transformers import AutoModelForCausalLM, DynamicCache
from transformers import __version__ as version
from transformers.utils import logging

from benchmarks.engine.workers import answer, memory_mib, timed


class Transformers:
    def __init__(self, folder: str, threads: int) -> None:
        torch.set_num_threads(threads)
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()

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

    def _ids(self, sequences: int, length: int) -> torch.Tensor:
        return torch.randint(0, self.model.config.vocab_size, (sequences, length))

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
            key, value = (torch.randn(shape, dtype=torch.bfloat16).repeat(sequences, 1, 1, 1) for _ in range(2))
            cache.update(key, value, layer)
        return cache


def main() -> None:
    peer = Transformers(sys.argv[1], int(sys.argv[2]))
    answer(
        {
            "ready": lambda: {"version": version},
            "prefill": peer.prefill,
            "decode": peer.decode,
            "memory": memory_mib,
        }
    )


if __name__ == "__main__":
    main()
