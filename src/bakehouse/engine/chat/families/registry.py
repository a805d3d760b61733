"""Which family a model is of: by its tokenizer's marks and by its architecture."""

from __future__ import annotations

from bakehouse.engine.chat.families.chatml import ChatML
from bakehouse.engine.chat.families.gemma import Gemma
from bakehouse.engine.chat.families.gpt_oss import GptOss
from bakehouse.engine.chat.families.llama2 import Llama2
from bakehouse.engine.chat.families.llama3 import Llama3
from bakehouse.engine.chat.families.mistral3 import Mistral3
from bakehouse.engine.chat.families.olmo3 import Olmo3
from bakehouse.engine.chat.families.qwen2 import Qwen2
from bakehouse.engine.chat.families.qwen3 import Qwen3
from bakehouse.engine.chat.families.r1 import R1
from bakehouse.engine.chat.family import THINK, Family
from bakehouse.engine.tokenizer.base import Tokenizer

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Qwen3(),
        Qwen2(),
        Llama3(),
        Mistral3(),
        Gemma(),
        Olmo3(),
        R1(),
        GptOss(),
        Llama2(),
        ChatML(),
    )
}

#: The beginning of an architecture's name, in lower case, and its family. The first that fits is taken.
_ARCHITECTURES = (
    ("dummy", "qwen3"),
    ("qwen3", "qwen3"),
    ("qwen2", "qwen2"),
    ("olmo3", "olmo3"),
    ("llama", "llama3"),
    ("gemma2", "gemma"),
    ("gemma3", "gemma"),
    ("gemmaforcausallm", "gemma"),
    ("mistral3", "mistral3"),
    ("ministral3", "mistral3"),
    ("ministral", "mistral3"),
    ("mistral", "mistral3"),
    ("mixtral", "mistral3"),
    ("deepseek", "r1"),
    ("gptoss", "gpt_oss"),
    ("gpt_oss", "gpt_oss"),
)

#: Families that are known by their marks where the architecture does not tell.
_BY_MARKS = ("llama3", "gemma", "gpt_oss", "mistral3")


def family_of(tokenizer: Tokenizer, architecture: str, template: str = "") -> Family:
    """*architecture* is a class's name or a model type. Distilled models keep the marks of their teacher."""
    if _fits(FAMILIES["r1"], tokenizer):
        return FAMILIES["r1"]
    name = architecture.lower()
    chosen = next((FAMILIES[family] for start, family in _ARCHITECTURES if name.startswith(start)), None)
    if chosen is not None and _fits(chosen, tokenizer):
        return chosen
    for candidate in _BY_MARKS:
        if _fits(FAMILIES[candidate], tokenizer):
            return FAMILIES[candidate]
    if "[INST]" in template and _fits(FAMILIES["llama2"], tokenizer):
        return FAMILIES["llama2"]
    if name.startswith("llama") and _fits(FAMILIES["llama2"], tokenizer) and not _has(tokenizer, "<|im_start|>"):
        return FAMILIES["llama2"]
    return _some_chatml(tokenizer)


def _some_chatml(tokenizer: Tokenizer) -> Family:
    """Many models speak ChatML, some with the tags of Qwen."""
    if not (_fits(FAMILIES["qwen2"], tokenizer) and _has(tokenizer, "<tool_call>")):
        return FAMILIES["chatml"]
    return FAMILIES["qwen3" if _has(tokenizer, THINK[0]) else "qwen2"]


def _fits(family: Family, tokenizer: Tokenizer) -> bool:
    return all(_has(tokenizer, mark) for mark in family.needs)


def _has(tokenizer: Tokenizer, mark: str) -> bool:
    return tokenizer.id_of(mark) is not None
