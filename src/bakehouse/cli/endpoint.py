"""Which server a command speaks to, and with which key."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bakehouse.cli.failures import Exit, Failure
from bakehouse.settings import Settings

BASE_URL, API_KEY, HOME = "INFERENCE_BASE_URL", "INFERENCE_API_KEY", "BAKEHOUSE_HOME"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server's URL without a slash at its end, and a key for it."""

    url: str
    key: str = field(repr=False)


def find_endpoint(url: str | None = None, key: str | None = None, home: Path | None = None) -> Endpoint:
    """What is given, else the environment's, else the server that was last started on *home*. Raises Failure."""
    known = _running_on(home)
    chosen = (url or os.environ.get(BASE_URL) or known.get("url") or "").rstrip("/")
    if not chosen:
        raise Failure(
            "no server is known",
            Exit.UNREACHABLE,
            hint="Start one with `bakehouse serve`, or name one with --url and --key.",
        )
    secret = key or os.environ.get(API_KEY)
    if not secret and chosen == str(known.get("url", "")).rstrip("/"):
        # A key is for the server that made it, so the local one is never sent to a server of another URL.
        secret = known.get("key")
    if not secret:
        raise NoKey(chosen)
    return Endpoint(chosen, secret)


def find_server(url: str | None = None, key: str | None = None, home: Path | None = None) -> tuple[str, str | None]:
    """The same, for a server that may ask for no key."""
    try:
        found = find_endpoint(url, key, home)
    except NoKey as missing:
        return missing.url, None
    return found.url, found.key


class NoKey(Failure):
    """A server is known, and no key for it."""

    def __init__(self, url: str) -> None:
        hint = f"Pass --key or set {API_KEY}; `bakehouse keys create` on the server's machine makes one."
        super().__init__(f"no API key for {url}", Exit.UNREACHABLE, hint=hint)
        self.url = url


def _running_on(home: Path | None) -> dict[str, Any]:
    directory = home or Path(os.environ.get(HOME) or Settings.model_fields["home"].default)
    path = directory.expanduser() / "endpoint.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Failure(f"cannot read {path}: {error}", hint="Start the server again; it writes this file.") from error
    return found if isinstance(found, dict) else {}
