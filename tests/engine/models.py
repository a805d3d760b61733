"""Tiny random models of each family, in Hugging Face layout on disk, with a tokenizer and a chat template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM

from bakehouse.engine.runner.torch.load import quiet

VOCABULARY = 512

SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
)

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "bos_token_id": 256,
    "eos_token_id": 258,
    "pad_token_id": 256,
    "tie_word_embeddings": False,
}

_EXPERTS: dict[str, Any] = {"num_experts_per_tok": 2, "num_local_experts": 4}

#: Family to what it changes of a small Llama. ``qwen3`` and ``gemma2`` have heads wider than hidden / heads.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "head_dim": 32},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3", "head_dim": 32, "tie_word_embeddings": True},
    "mistral": {"model_type": "mistral", "sliding_window": 24, "head_dim": 32},
    "gemma2": {
        "model_type": "gemma2",
        "head_dim": 32,
        "sliding_window": 24,
        "query_pre_attn_scalar": 32,
        "tie_word_embeddings": True,
    },
    "gemma3": {
        "model_type": "gemma3_text",
        "head_dim": 32,
        "sliding_window": 24,
        "query_pre_attn_scalar": 32,
        "layer_types": ["sliding_attention", "full_attention"],
        "tie_word_embeddings": True,
    },
    "mixtral": {"model_type": "mixtral", **_EXPERTS},
    "qwen3_moe": {
        "model_type": "qwen3_moe",
        "head_dim": 32,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 48,
    },
    "gpt_oss": {
        "model_type": "gpt_oss",
        "head_dim": 32,
        "sliding_window": 24,
        "layer_types": ["sliding_attention", "full_attention"],
        **_EXPERTS,
    },
    "olmo2": {"model_type": "olmo2"},
    "phi3": {"model_type": "phi3", "sliding_window": None},
    "granite": {"model_type": "granite", "logits_scaling": 4.0, "embedding_multiplier": 2.0},
    "deepseek_v3": {
        "model_type": "deepseek_v3",
        "num_key_value_heads": 4,
        "kv_lora_rank": 32,
        "q_lora_rank": 32,
        "qk_rope_head_dim": 16,
        "qk_nope_head_dim": 16,
        "v_head_dim": 24,
        "n_routed_experts": 4,
        "n_group": 1,
        "topk_group": 1,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 48,
    },
}


def make_config(family: str, **changes: Any) -> Any:
    settings = {**_SMALL, **FAMILIES.get(family, {"model_type": family}), **changes}
    return AutoConfig.for_model(settings.pop("model_type"), **settings)


def make_model(folder: Path, family: str, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
    """A random model of *family* at *folder*, larger weights than the usual start so that it is not indifferent."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(make_config(family, **changes), attn_implementation="eager")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name:
                weight.add_(torch.randn_like(weight) * 0.1)
            elif weight.dim() > 1:
                weight.normal_(0, 0.12)
            else:
                weight.normal_(0, 0.5)
    model.generation_config.eos_token_id = 258
    with quiet():
        model.to(dtype).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path, template: str = CHATML) -> None:
    """Byte-level BPE with ids 0..255 for bytes, then `SPECIALS`, then a few merges."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(["the cat sat on the mat and the dog ate the bread of the baker"] * 3, trainer)
    state = json.loads(tokenizer.to_str())
    learned = sorted(state["model"]["vocab"], key=state["model"]["vocab"].get)
    letters = [token for token in learned if len(token) == 1]
    merged = [token for token in learned if len(token) > 1]
    ids = {token: index for index, token in enumerate(letters)}
    ids.update({token: len(letters) + len(SPECIALS) + index for index, token in enumerate(merged)})
    state["model"]["vocab"] = ids
    state["added_tokens"] = [
        {
            "id": len(letters) + index,
            "content": content,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": index < 3,
        }
        for index, content in enumerate(SPECIALS)
    ]
    (folder / "tokenizer.json").write_text(json.dumps(state))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": template,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": 4096,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
