"""llama.cpp through llama-cpp-python's own bindings: ``python -m benchmarks.engine.llama FILE THREADS``.

Batches of one token per sequence, greedy by numpy's argmax, which is quicker than its sampler chain. Each sequence has
KV of its own; for long contexts one is run and its state is copied, because what KV holds does not change the time.
"""

from __future__ import annotations

import ctypes
import random
import sys
import time
from typing import Any

import llama_cpp
import numpy as np

from benchmarks.engine.workers import answer, memory_mib, timed

VOCAB = 151936


class Llama:
    def __init__(self, file: str, threads: int) -> None:
        llama_cpp.llama_backend_init()
        self.threads = threads
        self.model = llama_cpp.llama_model_load_from_file(file.encode(), llama_cpp.llama_model_default_params())
        assert self.model, f"{file} was not loaded"

    def context(self, sequences: int, length: int) -> Any:
        """A fresh context in which each of *sequences* can hold *length* tokens."""
        chosen = llama_cpp.llama_context_default_params()
        chosen.n_ctx = sequences * (-(-length // 256) * 256)
        chosen.n_batch = chosen.n_ubatch = 512
        chosen.n_seq_max = sequences
        chosen.n_threads = chosen.n_threads_batch = self.threads
        made = llama_cpp.llama_init_from_model(self.model, chosen)
        assert made, "llama.cpp made no context"
        return made

    def prefill(self, tokens: int) -> float:
        context = self.context(1, tokens + 8)
        batch = llama_cpp.llama_batch_init(tokens, 0, 1)
        _fill(batch, [(random.randrange(VOCAB), at, 0, at == tokens - 1) for at in range(tokens)])

        def run() -> None:
            assert llama_cpp.llama_decode(context, batch) == 0
            _best(context, tokens - 1)

        seconds = timed(run)
        llama_cpp.llama_batch_free(batch)
        llama_cpp.llama_free(context)
        return tokens / seconds

    def decode(self, sequences: int, context: int, tokens: int, warm: int = 2) -> dict[str, float]:
        made = self.context(sequences, context + tokens + warm + 1)
        self._history(made, sequences, context)
        batch = llama_cpp.llama_batch_init(sequences, 0, 1)
        newest = [random.randrange(VOCAB) for _ in range(sequences)]
        started = 0.0
        for step in range(tokens + warm):
            if step == warm:
                started = time.perf_counter()
            _fill(batch, [(token, context + step, number, True) for number, token in enumerate(newest)])
            assert llama_cpp.llama_decode(made, batch) == 0
            newest = [_best(made, number) for number in range(sequences)]
        seconds = time.perf_counter() - started
        llama_cpp.llama_batch_free(batch)
        llama_cpp.llama_free(made)
        return {"rate": sequences * tokens / seconds}

    def _history(self, made: Any, sequences: int, length: int) -> None:
        for start in range(0, length, 512):
            count = min(512, length - start)
            batch = llama_cpp.llama_batch_init(count, 0, 1)
            _fill(batch, [(random.randrange(VOCAB), start + at, 0, at == count - 1) for at in range(count)])
            assert llama_cpp.llama_decode(made, batch) == 0
            llama_cpp.llama_batch_free(batch)
        size = llama_cpp.llama_state_seq_get_size(made, 0)
        state = (ctypes.c_uint8 * size)()
        llama_cpp.llama_state_seq_get_data(made, state, size, 0)
        for number in range(1, sequences):
            assert llama_cpp.llama_state_seq_set_data(made, state, size, number) > 0


def _fill(batch: Any, rows: list[tuple[int, int, int, bool]]) -> None:
    """Rows of token, position, sequence, and whether its logits are wanted."""
    batch.n_tokens = len(rows)
    for at, (token, position, sequence, wanted) in enumerate(rows):
        batch.token[at], batch.pos[at] = token, position
        batch.n_seq_id[at], batch.logits[at] = 1, wanted
        batch.seq_id[at][0] = sequence


def _best(context: Any, row: int) -> int:
    logits = llama_cpp.llama_get_logits_ith(context, row)
    return int(np.ctypeslib.as_array(logits, shape=(VOCAB,)).argmax())


def main() -> None:
    llama = Llama(sys.argv[1], int(sys.argv[2]))
    answer(
        {
            "ready": lambda: {"version": llama_cpp.__version__},
            "prefill": llama.prefill,
            "decode": llama.decode,
            "memory": memory_mib,
        }
    )


if __name__ == "__main__":
    main()
