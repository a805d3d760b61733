"""Reading a tokenizer's files. Every error is a `ModelRefused` that names the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from bakehouse.engine.errors import ModelRefused

#: Tokenizers of other libraries; transformers can turn some of them into fast ones.
_SLOW = ("tokenizer.model", "vocab.json", "tekken.json", "tiktoken.model")

_FLAGS = ("lstrip", "rstrip", "single_word", "normalized", "special")


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    fast: tokenizers.Tokenizer
    config: Mapping[str, Any]
    chat_templates: Mapping[str, str]
    source: str


def read_tokenizer_files(folder: Path) -> TokenizerFiles:
    """What lies in *folder*: ``tokenizer.json``, ``tokenizer_config.json`` and the chat templates."""
    if not folder.is_dir():
        raise ModelRefused(f"{folder}: no such folder")
    config = _read_config(folder)
    path = folder / "tokenizer.json"
    fast = _read_fast(path) if path.is_file() else _convert(folder)
    _add_missing(fast, config, folder / "tokenizer_config.json")
    return TokenizerFiles(fast, config, _read_templates(folder, config), str(path))


def read_json(path: Path) -> dict[str, Any]:
    """The object in *path*; an empty one where there is no such file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelRefused(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelRefused(f"{path}: holds no JSON object")
    return value


def _read_config(folder: Path) -> dict[str, Any]:
    """``tokenizer_config.json``, over ``special_tokens_map.json`` where it says nothing."""
    return {**read_json(folder / "special_tokens_map.json"), **read_json(folder / "tokenizer_config.json")}


def _read_fast(path: Path) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise ModelRefused(f"{path}: not a tokenizer: {error}") from error


def _convert(folder: Path) -> tokenizers.Tokenizer:
    """A folder without ``tokenizer.json``: transformers may be able to make it from what there is."""
    slow = next((folder / name for name in _SLOW if (folder / name).is_file()), None)
    if slow is None:
        raise ModelRefused(f"{folder / 'tokenizer.json'}: missing, and no other tokenizer lies there")
    try:
        from transformers import AutoTokenizer

        loaded = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        return loaded.backend_tokenizer
    except Exception as error:  # many libraries stand behind this call, and each has errors of its own
        raise ModelRefused(
            f"{slow}: cannot be turned into a tokenizer.json ({type(error).__name__}: {error}). "
            "Save the model's tokenizer with transformers' save_pretrained and add it again"
        ) from error


def _add_missing(fast: tokenizers.Tokenizer, config: Mapping[str, Any], path: Path) -> None:
    """Tokens that only ``added_tokens_decoder`` knows; their ids must run on from the tokenizer's own."""
    known = fast.get_added_tokens_decoder()
    listed = config.get("added_tokens_decoder") or {}
    for index, token in sorted((int(index), token) for index, token in listed.items()):
        if index in known:
            continue
        flags = {
            key: bool(token.get(key, False)) for key in ("lstrip", "rstrip", "single_word", "normalized", "special")
        }
        added = tokenizers.AddedToken(token["content"], **flags)
        (fast.add_special_tokens if flags["special"] else fast.add_tokens)([added])
        if fast.token_to_id(token["content"]) != index:
            raise ModelRefused(f"{path}: the added token {token['content']!r} cannot have the id {index}")


def _read_templates(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Named templates; a file of its own goes before what JSON files hold."""
    value = config.get("chat_template", read_json(folder / "chat_template.json").get("chat_template"))
    templates: dict[str, str] = {}
    if isinstance(value, str):
        templates["default"] = value
    elif isinstance(value, list):
        templates.update({str(each["name"]): str(each["template"]) for each in value})
    elif value is not None:
        raise ModelRefused(f"{folder / 'tokenizer_config.json'}: chat_template is neither text nor a list")
    for path in (*sorted((folder / "additional_chat_templates").glob("*.jinja")), folder / "chat_template.jinja"):
        if path.is_file():
            name = "default" if path.name == "chat_template.jinja" else path.stem
            templates[name] = _read_text(path)
    return templates


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ModelRefused(f"{path}: cannot be read: {error}") from error
