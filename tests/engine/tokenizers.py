"""Tiny tokenizers of the kinds that models come with, trained here in milliseconds.

``save(folder, "qwen3")`` writes what a model's folder holds of its tokenizer; `FAMILIES` names the families. Ids below
`VOCABULARY` are enough for all of them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers

#: No family's tokenizer has more ids than this.
VOCABULARY = 768

TEMPLATES = Path(__file__).parent / "templates"

_CORPUS = [
    "The baker heats the oven before the loaves go in, and takes them out when they are done.",
    "def bake(loaves: int, minutes: float = 40.5) -> list[str]:\n    return [f'loaf {n}' for n in range(loaves)]\n",
    '{"name": "weigh", "arguments": {"grams": 500, "of": "flour"}}',
    "Grüße aus der Bäckerei! Où est le levain? 面包师在黎明前开始工作。 Хлеб пекут ночью. 🥖🍞",
    "What is the weather in Paris today?  It is 21 degrees, and the sun shines.\n\nThank you!",
]

#: Digits one by one, words with the space before them, runs of line ends: the shape of most modern expressions.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, slots=True)
class TinyFamily:
    """``special`` tokens are turn marks and the like, ``added`` are single ids that are ordinary text."""

    name: str
    architecture: str
    style: str  # byte_level, sentencepiece (spaces put in front), gemma (none put in front) or unigram
    special: tuple[str, ...]
    added: tuple[str, ...] = ()
    bos: str | None = None
    eos: str | None = None

    @property
    def template(self) -> str:
        return (TEMPLATES / f"{self.name}.jinja").read_text(encoding="utf-8")


_CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_CALLS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
_THINK = ("<think>", "</think>")
_R1 = (
    "<｜begin▁of▁sentence｜>",
    "<｜end▁of▁sentence｜>",
    "<｜User｜>",
    "<｜Assistant｜>",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁outputs▁begin｜>",
    "<｜tool▁outputs▁end｜>",
    "<｜tool▁output▁begin｜>",
    "<｜tool▁output▁end｜>",
    "<｜tool▁sep｜>",
    "<|EOT|>",
)
_LLAMA3 = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|python_tag|>",
)
_MISTRAL = (
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[TOOL_CALLS]",
    "[ARGS]",
)
_HARMONY = (
    "<|startoftext|>",
    "<|endoftext|>",
    "<|return|>",
    "<|constrain|>",
    "<|channel|>",
    "<|start|>",
    "<|end|>",
    "<|message|>",
    "<|call|>",
)

FAMILIES = {
    family.name: family
    for family in (
        TinyFamily("qwen3", "Qwen3ForCausalLM", "byte_level", _CHATML, _CALLS + _THINK, eos="<|im_end|>"),
        TinyFamily("qwen2", "Qwen2ForCausalLM", "byte_level", _CHATML, _CALLS[:2], eos="<|im_end|>"),
        TinyFamily("olmo3", "Olmo3ForCausalLM", "byte_level", _CHATML, _THINK, eos="<|im_end|>"),
        TinyFamily("llama3", "LlamaForCausalLM", "byte_level", _LLAMA3, bos=_LLAMA3[0], eos="<|eot_id|>"),
        TinyFamily("llama2", "LlamaForCausalLM", "sentencepiece", ("<unk>", "<s>", "</s>"), bos="<s>", eos="</s>"),
        TinyFamily("mistral3", "Mistral3ForConditionalGeneration", "byte_level", _MISTRAL, bos="<s>", eos="</s>"),
        TinyFamily(
            "gemma",
            "Gemma3ForCausalLM",
            "gemma",
            ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"),
            bos="<bos>",
            eos="<eos>",
        ),
        TinyFamily("r1", "DeepseekV3ForCausalLM", "byte_level", _R1, _THINK, bos=_R1[0], eos=_R1[1]),
        TinyFamily("gpt_oss", "GptOssForCausalLM", "byte_level", _HARMONY, bos="<|startoftext|>", eos="<|return|>"),
    )
}


def save(folder: Path, name: str, *, template: bool = True) -> Path:
    """Writes ``tokenizer.json`` and ``tokenizer_config.json`` of a family, with its chat template, into *folder*."""
    family = FAMILIES[name]
    folder.mkdir(parents=True, exist_ok=True)
    build(name).save(str(folder / "tokenizer.json"))
    config: dict[str, object] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    if family.bos:
        config["bos_token"] = family.bos
    if family.eos:
        config["eos_token"] = family.eos
    if template:
        config["chat_template"] = family.template
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def build(name: str) -> tokenizers.Tokenizer:
    """A family's tokenizer; each call gives one of its own."""
    family = FAMILIES[name]
    return tokenizers.Tokenizer.from_str(_trained(family.style, family.special, family.added))


@cache
def _trained(style: str, special: Sequence[str], added: Sequence[str]) -> str:
    tokenizer = {
        "byte_level": byte_level,
        "sentencepiece": sentencepiece,
        "gemma": lambda: sentencepiece(prefix=False),
        "unigram": unigram,
    }[style]()
    tokenizer.add_special_tokens([AddedToken(text, normalized=False) for text in special])
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=False) for text in added])
    return str(tokenizer.to_str())


def byte_level(size: int = 420) -> tokenizers.Tokenizer:
    """BPE over bytes, split as Qwen and Llama 3 split."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    return tokenizer


def sentencepiece(size: int = 420, *, prefix: bool = True) -> tokenizers.Tokenizer:
    """BPE over characters with bytes for those it lacks: as Llama 2 with *prefix* (a space in front), else as Gemma."""
    merged = tokenizers.Tokenizer(models.BPE())
    merged.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    merged.train_from_iterator(
        _CORPUS[:2] + _CORPUS[4:], trainers.BpeTrainer(vocab_size=size - 256, show_progress=False)
    )
    model = json.loads(merged.to_str())["model"]
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += [piece for piece, _ in sorted(model["vocab"].items(), key=lambda item: item[1]) if piece != "<unk>"]
    vocab = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocab, [tuple(m) for m in model["merges"]], byte_fallback=True, unk_token="<unk>", fuse_unk=True)
    )
    steps = [normalizers.Prepend("▁")] if prefix else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    after = [decoders.Strip(" ", 1, 0)] if prefix else []
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *after]
    )
    return tokenizer


def unigram(size: int = 200) -> tokenizers.Tokenizer:
    """SentencePiece's unigram model with bytes for what it lacks, and a space in front of the first word."""
    trained = tokenizers.Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=size, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False)
    trained.train_from_iterator(_CORPUS[:2] + _CORPUS[4:], trainer)
    learned = [(piece, score) for piece, score in json.loads(trained.to_str())["model"]["vocab"] if piece != "<unk>"]
    vocab = [("<unk>", 0.0), *((f"<0x{byte:02X}>", -20.0) for byte in range(256)), *learned]
    tokenizer = tokenizers.Tokenizer(models.Unigram(vocab, 0, True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first")])
    return tokenizer
