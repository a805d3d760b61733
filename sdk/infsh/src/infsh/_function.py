"""The `function` decorator: what one function of an app needs and how it behaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

ATTRIBUTE = "__inferencesh_function__"
_CREDENTIAL_KEYS = ("slug", "capabilities", "description", "optional", "secrets", "scopes", "provider", "auth")
_HINTS = ("readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint")


def function(
    *,
    credentials: Mapping[str, Any] | Sequence[Any] | None = None,
    annotations: Mapping[str, Any] | None = None,
    capabilities: Sequence[str] | None = None,
) -> Callable[[F], F]:
    """Attach metadata to a function; the function itself is returned unchanged.

    ``credentials`` is a mapping by slug, a list of entries with a ``slug``, or a list of slugs; a dotted slug is a
    capability of the part before the dot. ``annotations`` are ``title`` and the MCP tool hints.
    Raises ``TypeError`` for a wrong type, ``ValueError`` for an unknown key.
    """
    kept: dict[str, Any] = {}
    if credentials is not None:
        kept["credentials"] = _normalise(credentials)
    if annotations is not None:
        kept["annotations"] = _check_annotations(annotations)
    if capabilities is not None:
        kept["capabilities"] = _strings("capabilities", capabilities)

    def decorate(target: F) -> F:
        setattr(target, ATTRIBUTE, kept)
        return target

    return decorate


def _normalise(credentials: Mapping[str, Any] | Sequence[Any]) -> list[dict[str, Any]]:
    if isinstance(credentials, Mapping):
        return [_entry({"slug": slug, **(value or {})}) for slug, value in credentials.items()]
    if isinstance(credentials, str):
        raise TypeError("credentials is a mapping or a list, not a string")
    return [_entry(_of_slug(item) if isinstance(item, str) else item) for item in credentials]


def _of_slug(slug: str) -> dict[str, Any]:
    if "." not in slug:
        return {"slug": slug}
    return {"slug": slug.split(".", 1)[0], "capabilities": [slug]}


def _entry(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, Mapping):
        raise TypeError(f"a credential is a mapping or a slug, not {type(entry).__name__}")
    unknown = sorted(set(entry) - set(_CREDENTIAL_KEYS))
    if unknown:
        raise ValueError(f"a credential has unknown keys {unknown}; allowed are {list(_CREDENTIAL_KEYS)}")
    if not isinstance(entry.get("slug"), str) or not entry["slug"]:
        raise ValueError("a credential needs a slug")
    for key in ("capabilities", "secrets", "scopes"):
        if key in entry:
            _strings(key, entry[key])
    return {key: entry[key] for key in _CREDENTIAL_KEYS if key in entry}


def _strings(name: str, values: Any) -> list[str]:
    if isinstance(values, str) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"{name} is a list of strings")
    return list(values)


def _check_annotations(annotations: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in annotations.items():
        if key not in ("title", *_HINTS):
            raise ValueError(f"unknown annotation {key!r}; allowed are title, {', '.join(_HINTS)}")
        wanted = str if key == "title" else bool
        if not isinstance(value, wanted):
            raise TypeError(f"annotation {key} is a {wanted.__name__}")
    return dict(annotations)
