"""The same weights as GGUF, for llama.cpp; runs in its environment: ``python -m benchmarks.engine.convert HF OUT``.

Writes ``OUT/bf16.gguf`` without a tokenizer (ids go in and come out), and from it ``q8_0.gguf`` and ``q4_0.gguf`` with
llama.cpp's own quantiser at its defaults.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
FILES = {"q8_0": "LLAMA_FTYPE_MOSTLY_Q8_0", "q4_0": "LLAMA_FTYPE_MOSTLY_Q4_0"}


def tensors(file: Path) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """Names and bf16 words of a safetensors file; numpy has no bf16, so they stay 16-bit integers."""
    data = np.memmap(file, np.uint8, "r")
    size = int(data[:8].view(np.uint64)[0])
    for name, at in json.loads(bytes(data[8 : 8 + size])).items():
        if name != "__metadata__":
            start, stop = at["data_offsets"]
            assert at["dtype"] == "BF16", at
            yield name, data[8 + size + start : 8 + size + stop].view(np.uint16).reshape(at["shape"])


def gguf_name(name: str) -> str | None:
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    if name == "lm_head.weight":
        return None  # tied
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{NAMES[rest.removesuffix('.weight')]}.weight"


def write(folder: Path, target: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(target, "qwen3")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(1_000_000.0)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    for name, words in tensors(folder / "model.safetensors"):
        known = gguf_name(name)
        if known is None:
            continue
        if words.ndim == 1:
            writer.add_tensor(known, (words.astype(np.uint32) << 16).view(np.float32))
        else:
            writer.add_tensor(known, words.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantise(source: Path, target: Path, kind: str) -> None:
    chosen = llama_cpp.llama_model_quantize_default_params()
    chosen.ftype = getattr(llama_cpp, FILES[kind])
    status = llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(chosen))
    if status:
        raise SystemExit(f"llama.cpp could not quantise to {kind}: status {status}")


def main() -> None:
    folder, out = map(Path, sys.argv[1:])
    write(folder, out / "bf16.gguf")
    for kind in FILES:
        quantise(out / "bf16.gguf", out / f"{kind}.gguf", kind)
    (out / "done").touch()


if __name__ == "__main__":
    main()
