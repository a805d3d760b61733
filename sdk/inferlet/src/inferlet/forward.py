# Written by scripts/unasync.py from aio/forward.py: change that one.
"""Single passes of the model, for programs that sample, verify or score by themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from inferlet._packing import pack_json
from inferlet._waits import result
from inferlet.adapter import Adapter
from inferlet.context import Context
from inferlet.generation import mask_into
from inferlet.grammar import Grammar, Matcher
from inferlet.model import Model
from inferlet.output import AnyOutput, Distribution, Output, output_of
from inferlet.sampler import Sampler

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Distribution", "ForwardPass", "Output"]


class ForwardPass:
    """Say what goes in and what is wanted, then `execute`; each method gives the pass itself, for chains.

    The context, the adapter with its seed, and whether the engine may draft stay for the next `execute`. Tokens, masks
    and samplers are used up by it.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._context: Context | None = None
        self._adapter: Adapter | None = None
        self._zo_seed = 0
        self._speculate = True
        self._clear()

    def _clear(self) -> None:
        self._tokens: list[int] = []
        self._positions: list[int] | None = None
        self._drafts: list[int] = []
        self._draft_positions: list[int] | None = None
        self._masks: list[list[int]] | None = None
        self._logit_mask: Sequence[int] | None = None
        self._samplers: list[dict[str, Any]] = []
        self._logprobs = 0
        self._timeout: float | None = None

    def context(self, context: Context) -> Self:
        """Read the KV of *context* and extend it. Without one a pass has no history and leaves none."""
        self._context = context
        return self

    def input_tokens(self, tokens: Iterable[int], positions: Iterable[int] | None = None) -> Self:
        """Append *tokens*. Where no call gives *positions*, they run on from the context's last one.

        Tokens that the buffer of the context begins with are taken from it; it need not hold them.
        """
        before = len(self._tokens)
        self._tokens.extend(tokens)
        self._positions = _more(self._positions, positions, before)
        return self

    def speculative_tokens(self, tokens: Iterable[int], positions: Iterable[int] | None = None) -> Self:
        """Drafts behind the input: those are kept that the sampler at the input's last index would have drawn."""
        before = len(self._drafts)
        self._drafts.extend(tokens)
        self._draft_positions = _more(self._draft_positions, positions, before)
        return self

    def enable_speculative_output(self, flag: bool = True) -> Self:
        """Whether the engine may answer drafts with drafts of its own for the next pass."""
        self._speculate = flag
        return self

    def attention_mask(self, masks: Iterable[Sequence[int]]) -> Self:
        """Run lengths for each token, drafts too: which positions it sees. Without, all up to its own."""
        self._masks = [list(mask) for mask in masks]
        return self

    def logit_mask(self, mask: Sequence[int]) -> Self:
        """Run lengths over the vocabulary: which ids may come, at every index. No runs mean all."""
        if isinstance(mask, (Matcher, Grammar)):
            raise TypeError("logit_mask: run lengths or a Mask; of a matcher the one that it gives for the next token")
        self._logit_mask = mask
        return self

    def sampler(self, indices: Iterable[int], sampler: Sampler) -> Self:
        """Want one result at each of *indices*, counted from 0 within the input tokens. May be repeated."""
        self._samplers.append({"indices": list(indices), "sampler": sampler.request()})
        return self

    def adapter(self, adapter: Adapter) -> Self:
        """Use the weights of *adapter* in this pass only."""
        self._adapter = adapter
        return self

    def adapter_seed(self, seed: int) -> Self:
        """Perturb the adapter's weights, see `inferlet.zo`. 0 takes the mean again."""
        self._zo_seed = seed
        return self

    def logprobs(self, count: int) -> Self:
        """With each token its logarithmic probability, and those of the *count* most likely ids; at most 64."""
        self._logprobs = count
        return self

    def timeout(self, seconds: float) -> Self:
        """End the pass as `DeadlineExceeded` after so many *seconds*."""
        self._timeout = seconds
        return self

    def execute(self) -> AnyOutput:
        """Run it. When it fails its context is as before, and what was said of the pass is used up all the same.

        Pages are reserved and committed, and the cursor moves on, without more ado. Raises `BadRequest` for what cannot
        be, `OutOfPages`, and `DeadlineExceeded` after `timeout`.
        """
        wait = self._start()
        return output_of(result(self.model._host, wait))

    def _start(self) -> int:
        request = self._request()
        give_back = mask_into(self.model._host, request, "logit_mask", self._logit_mask)
        self._clear()
        try:
            if self._context is not None:
                self._context._use()
            return self.model._host.passes.forward(self.model._handle, pack_json(request))
        finally:
            give_back()

    def _request(self) -> dict[str, Any]:
        request: dict[str, Any] = {
            "context": None if self._context is None else self._context._handle,
            "tokens": self._tokens,
            "positions": self._positions,
            "masks": self._masks,
            "samplers": self._samplers,
            "draft_tokens": self._drafts,
            "draft_positions": self._draft_positions,
            "speculative_output": self._speculate,
            "adapter": None if self._adapter is None else self._adapter._handle,
            "zo_seed": self._zo_seed,
            "logprobs": self._logprobs,
            "timeout": self._timeout,
        }
        return {name: value for name, value in request.items() if value is not None}


def _more(known: list[int] | None, positions: Iterable[int] | None, before: int) -> list[int] | None:
    """Positions go with tokens: all calls that add tokens give them, or none does."""
    if positions is None:
        if known is not None:
            raise ValueError("positions were given for the tokens before; give them for these too")
        return None
    if known is None and before:
        raise ValueError("no positions were given for the tokens before; give them for all or for none")
    return [*(known or ()), *positions]
