"""How people name an app: ``[app/][namespace/]name[@version][:function]``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bakehouse.core.errors import Invalid

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_.-]{0,62}[a-z0-9])?", re.ASCII)
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", re.ASCII)
_FUNCTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)

RESERVED_NAMESPACES = frozenset({"models", "examples", "system"})
"""Namespaces that belong to the platform; no owner may take them as its name."""

RESERVED_NAMES = frozenset(
    {
        "license",
        "card",
        "content",
        "internal-tools",
        "resolve",
        "versions",
        "list",
        "duplicate",
        "status",
        "transfer",
        "visibility",
    }
)
"""App names that would be taken for a fixed word of a path."""


@dataclass(frozen=True, slots=True)
class Ref:
    """A parsed reference. ``namespace`` None means the caller's own; ``version`` None means the latest."""

    namespace: str | None
    name: str
    version: str | None = None
    function: str | None = None

    def __str__(self) -> str:
        head = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return head + (f"@{self.version}" if self.version else "") + (f":{self.function}" if self.function else "")


def check_name(value: str, what: str) -> str:
    """*value* if it can be a namespace or an app name, else Invalid that names *what*."""
    if not _NAME.fullmatch(value):
        raise Invalid.at(
            f"/{what}", f"{value!r} must be 1 to 64 of a-z, 0-9, '_', '.', '-', with a letter or digit at both ends"
        )
    return value


def parse_ref(text: str, path: str = "/app") -> Ref:
    """Parse *text*, or raise Invalid with JSON pointer *path*."""
    head, _, function = text.partition(":")
    head, _, version = head.partition("@")
    parts = head.split("/")
    if len(parts) == 3 and parts[0] == "app":
        parts = parts[1:]
    wrong = (
        len(parts) > 2
        or not all(_NAME.fullmatch(part) for part in parts)
        or ("@" in text and not _VERSION.fullmatch(version))
        or (":" in text and not _FUNCTION.fullmatch(function))
    )
    if wrong:
        raise Invalid.at(
            path,
            f"{text!r} is not an app reference; write namespace/name, with @version or :function if wanted",
        )
    namespace = parts[0] if len(parts) == 2 else None
    return Ref(namespace, parts[-1], None if version in ("", "latest") else version, function or None)
