"""Choosing the chat format of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bakehouse.engine.chat.families.registry import family_of
from bakehouse.engine.chat.format import ChatOptions, FamilyFormat
from bakehouse.engine.tokenizer.base import Tokenizer


def create_format(
    tokenizer: Tokenizer,
    architecture: str,
    config: Mapping[str, Any] | None = None,
    options: ChatOptions | None = None,
) -> FamilyFormat:
    """The format of a model with this tokenizer.

    *architecture* is the name of its class, or its model type. Of *config*, which may be the model's ``config.json``
    with its ``generation_config.json`` over it, only ``eos_token_id`` counts: an id or a list of ids. A tokenizer's own
    template is used if it has one. Raises `ModelRefused` for a broken template or if no token can end a turn.
    """
    templates: Mapping[str, str] = getattr(tokenizer, "chat_templates", {})
    template = templates.get("default")
    return FamilyFormat(
        family_of(tokenizer, architecture, template or ""),
        tokenizer,
        template=template,
        special_tokens=dict(getattr(tokenizer, "special_tokens", {})),
        eos=_eos(tokenizer, config or {}),
        options=options,
    )


def _eos(tokenizer: Tokenizer, config: Mapping[str, Any]) -> list[int]:
    """A configuration may name ids that this tokenizer does not have; nothing could generate them as text's end."""
    value = config.get("eos_token_id")
    ids = value if isinstance(value, list) else [] if value is None else [value]
    return [int(token) for token in ids if tokenizer.token_bytes(int(token))]
