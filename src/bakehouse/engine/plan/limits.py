"""What planning may use."""

from __future__ import annotations

from dataclasses import dataclass

from bakehouse.engine.errors import BadRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanLimits:
    """Of one model.

    ``pages`` of ``page_size`` tokens are the whole KV pool. A step runs at most ``max_step_tokens`` rows, reads out at
    most ``max_step_rows`` of them, and takes at most ``prefill_chunk`` rows of one pass. ``aging``: seconds of waiting
    that count as one level of priority, so that the lowest is served in the end. ``max_left``: named contexts of one
    owner that are kept when no program has them open; the least recently used go first. ``salt_per_owner``: owners
    share no pages, at the cost of computing equal prefixes once for each. ``prefix_cache`` off: pages are shared by
    forks and by name only, and equal text is computed each time that it comes.
    """

    pages: int
    page_size: int = 16
    max_step_tokens: int = 2048
    max_step_rows: int = 512
    prefill_chunk: int = 512
    max_contexts: int = 4096
    max_left: int = 1024
    aging: float = 30.0
    salt_per_owner: bool = False
    prefix_cache: bool = True

    def __post_init__(self) -> None:
        for name in (
            "pages",
            "page_size",
            "max_step_tokens",
            "max_step_rows",
            "prefill_chunk",
            "max_contexts",
            "max_left",
        ):
            if getattr(self, name) < 1:
                raise BadRequest.at(name, f"must be 1 or more, not {getattr(self, name)}")
        if self.aging <= 0:
            raise BadRequest.at("aging", f"must be more than 0 seconds, not {self.aging}")

    def pages_for(self, tokens: int) -> int:
        return -(-tokens // self.page_size)
