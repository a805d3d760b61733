"""Masks as run lengths, and masks that stay with the host until somebody looks at them.

Runs alternate between not allowed and allowed, the first one is of not allowed and may be 0: of six ids ``[2, 3, 1]``
allows the third to the fifth, ``[0, 6]`` all, ``[6]`` none. What lies beyond the runs is not allowed.
"""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Iterable, Sequence
from typing import ClassVar, overload

from inferlet._host import Host, host
from inferlet._packing import pack_ids, unpack_ids


class Mask(Sequence[int]):
    """A mask over the vocabulary. It is a sequence of run lengths, but what only passes it on never reads them."""

    def __init__(self, host: Host, handle: int) -> None:
        self._handle = handle
        self._host = host
        self._runs: array[int] | None = None

    @classmethod
    def of(cls, runs: Iterable[int]) -> Mask:
        """The mask of *runs*, made known to the host once, for a program that uses it many times.

        Raises `LimitExceeded` where too many are kept (``matchers`` of them), or one is too large.
        """
        found = host()
        return cls(found, found.grammars.create_mask(pack_ids(runs)))

    @classmethod
    def allowing(cls, ids: Iterable[int]) -> Mask:
        """The mask that allows *ids* and nothing else."""
        return cls.of(runs_of(ids))

    @property
    def runs(self) -> array[int]:
        """The run lengths, 32 bits each. The host is asked for them once."""
        if self._runs is None:
            self._runs = unpack_ids(self._host.grammars.read_mask(self._handle))
        return self._runs

    def allows(self, token: int) -> bool:
        """Whether the id *token* may come."""
        return allows(self.runs, token)

    def allowed(self) -> list[int]:
        """Every id that may come, in order."""
        return allowed(self.runs)

    def __len__(self) -> int:
        return len(self.runs)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> list[int]: ...

    def __getitem__(self, index: int | slice) -> int | list[int]:
        found = self.runs[index]
        return found.tolist() if isinstance(found, array) else found

    def __bool__(self) -> bool:
        """True: to ask whether there is a mask does not read it."""
        return True

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str | bytes):
            return NotImplemented
        return list(self.runs) == list(other)

    __hash__: ClassVar[None]  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Mask.of({self.runs.tolist()})"

    def __del__(self) -> None:
        # Where the host is gone, or the constructor failed, there is nothing to give back.
        with contextlib.suppress(Exception):
            self._host.grammars.release_mask(self._handle)


def runs_of(ids: Iterable[int]) -> list[int]:
    """The run lengths that allow *ids*, in any order, and nothing else. Of no ids ``[0]``: no runs would mean all."""
    runs: list[int] = []
    at = 0
    for token in sorted(set(ids)):
        if token < 0:
            raise ValueError(f"an id is 0 or more, not {token}")
        if runs and token == at:
            runs[-1] += 1
        else:
            runs += [token - at, 1]
        at = token + 1
    return runs or [0]


def allowed(runs: Iterable[int]) -> list[int]:
    """The ids that *runs* allow, in order."""
    found: list[int] = []
    at = 0
    for number, run in enumerate(runs):
        if number % 2:
            found += range(at, at + run)
        at += run
    return found


def allows(runs: Iterable[int], index: int) -> bool:
    """Whether *runs* allow *index*."""
    at = 0
    for number, run in enumerate(runs):
        at += run
        if index < at:
            return number % 2 == 1
    return False


def causal(position: int) -> list[int]:
    """The attention mask of a token at *position* that is used where none is given: every key up to itself."""
    return [0, position + 1]


def sliding(position: int, window: int, sinks: int = 0) -> list[int]:
    """The attention mask that sees the last *window* positions up to *position*, and the first *sinks* ones."""
    start = max(position + 1 - window, 0)
    if start <= sinks:
        return causal(position)
    return [0, sinks, start - sinks, position + 1 - start] if sinks else [start, position + 1 - start]
