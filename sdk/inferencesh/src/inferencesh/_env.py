"""Where the server is and which key opens it. The only place that reads the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from inferencesh._errors import MissingKey

DEFAULT_BASE_URL = "http://127.0.0.1:8787"


@dataclass(frozen=True)
class Settings:
    """``base_url`` has no slash at its end; ``timeout`` is seconds per answer; ``max_retries`` is per request."""

    base_url: str
    api_key: str = field(repr=False)
    timeout: float
    max_retries: int


def settings(base_url: str | None, api_key: str | None, timeout: float, max_retries: int) -> Settings:
    """What was given, else ``INFERENCE_BASE_URL`` and ``INFERENCE_API_KEY``. Raises ValueError for what is unusable."""
    key = api_key or os.environ.get("INFERENCE_API_KEY")
    if not key:
        raise MissingKey(
            "no API key: pass api_key=..., or set the environment variable INFERENCE_API_KEY "
            "(a server's first start prints its key)"
        )
    url = (base_url or os.environ.get("INFERENCE_BASE_URL") or DEFAULT_BASE_URL).rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f"base_url must be an http(s) URL such as {DEFAULT_BASE_URL}, not {url!r}")
    if timeout <= 0 or max_retries < 0:
        raise ValueError("timeout must be above 0 and max_retries at least 0")
    return Settings(url, key, timeout, max_retries)
