"""Nothing secret reaches a log line, whoever wrote the line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "[hidden]"
_NAMES = frozenset(
    {
        "api_key",
        "authorization",
        "access_token",
        "ciphertext",
        "cookie",
        "key_text",
        "password",
        "secret",
        "secrets",
        "signature",
        "token",
        "x_api_key",
    }
)
_TEXTS = (
    (re.compile(r"inf_[A-Za-z0-9_-]{43}"), "inf_" + HIDDEN),
    (re.compile(r"(?i)(bearer\s+)[^\s\"',]+"), r"\1" + HIDDEN),
    (re.compile(r"(?i)([?&](?:access_token|signature|sig|token)=)[^&\s\"']+"), r"\1" + HIDDEN),
    (re.compile(r"(\w+://[^\s:/@]*:)[^\s@/]+(@)"), r"\1" + HIDDEN + r"\2"),
)


def redact(value: Any) -> Any:
    """*value* with keys, tokens and passwords in any of its texts hidden; mappings and lists are copied."""
    if isinstance(value, str):
        for pattern, replacement in _TEXTS:
            value = pattern.sub(replacement, value)
        return value
    if isinstance(value, Mapping):
        return {name: HIDDEN if _is_secret(name) else redact(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item) for item in value]
    return value


def _is_secret(name: Any) -> bool:
    return isinstance(name, str) and name.lower().replace("-", "_") in _NAMES
