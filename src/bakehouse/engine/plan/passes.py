"""The unit that the scheduler orders: one pass of the model over given tokens of one context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from bakehouse.engine.brle import Brle
from bakehouse.engine.errors import EngineError
from bakehouse.engine.params import NO_PENALTIES, Penalties, Sampler
from bakehouse.engine.plan.step import ReadoutResult

if TYPE_CHECKING:
    from bakehouse.engine.plan.contexts import Context


class MaskSource(Protocol):
    """Logit masks that are computed while the model runs, by the loop, on another thread."""

    def masks(self, drafts: Sequence[int]) -> Sequence[bytes | None]:
        """One for the last input row and one after each of *drafts*; may end early where a draft cannot be accepted."""


@dataclass(slots=True)
class Want:
    """One result at input row ``index``. Of a pass with drafts, the want at the last index holds for each draft too,
    with ``draw`` counted on."""

    index: int
    sampler: Sampler
    seed: int = 0
    draw: int = 0
    mask: bytes | None = None
    penalties: Penalties = NO_PENALTIES
    prompt: Sequence[int] = ()
    generated: Sequence[int] = ()
    logprobs: int = 0
    want_logprob: bool = False


@dataclass(slots=True, eq=False)
class Pass:
    """What to run. ``adapter`` is a slot, ``generation`` which weights it had. ``deadline`` is in the loop's clock.

    ``positions`` None: they run on from the context's last position. ``masks``: by position, one per input and draft.
    ``every_draft``: run all drafts or fail; otherwise a step that has no room for some leaves them out.
    ``stream``: passes of one stream (a generation) share it, so that a running stream keeps its place in the order.
    ``program``: for whom the pages of a pass without a context count.
    """

    owner: str
    context: Context | None
    tokens: Sequence[int]
    positions: Sequence[int] | None = None
    masks: Sequence[Brle] | None = None
    wants: list[Want] = field(default_factory=list)
    drafts: Sequence[int] = ()
    draft_positions: Sequence[int] | None = None
    mask_source: MaskSource | None = None
    adapter: int | None = None
    generation: int = 0
    zo_seed: int = 0
    priority: int = 0
    deadline: float | None = None
    stream: int = 0
    every_draft: bool = False
    program: str = ""


@dataclass(slots=True)
class Outcome:
    """``results``: one per want, in order. ``accepted``: with drafts, those that held and then one new token; KV holds
    all of them but the last. ``error`` excludes both, and leaves the context as it was before the pass."""

    results: list[ReadoutResult] = field(default_factory=list)
    accepted: tuple[int, ...] = ()
    accepted_results: list[ReadoutResult] = field(default_factory=list)
    error: EngineError | None = None
