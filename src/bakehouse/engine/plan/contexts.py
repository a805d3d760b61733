"""One sequence: its tokens, where their KV lies, and what is waiting to be run.

Tokens live in slots 0, 1, 2, ... in the order they were run. The slots of the first ``committed`` pages are committed
pages, the rest are **filled**; **buffered** tokens have no slot yet. ``computed`` counts the slots whose KV is in
``pages`` now: a context that was put aside has none and is computed again from its tokens when it is next needed. While
a pass is under way ``computed`` and ``keys`` may run ahead of the tokens; whatever a reader sees here (`state`, a fork)
is the context as it was before that pass.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bakehouse.engine.brle import Ranges
from bakehouse.engine.errors import BadRequest, NotFound, OutOfPages
from bakehouse.engine.params import ContextState
from bakehouse.engine.plan.prefix import AdapterKey

if TYPE_CHECKING:
    from bakehouse.engine.plan.table import ContextTable
    from bakehouse.engine.plan.work import Part, Work


class Context:
    """Made by `ContextTable`; all of it is used under the loop's lock.

    ``buffered`` and ``transcript`` are the session's. `ContextTable.lookup` finds it by ``owner`` and ``name``;
    ``programs`` are those that have it open.
    """

    __slots__ = (
        "adapters",
        "buffered",
        "charged",
        "committed",
        "computed",
        "id",
        "keys",
        "last",
        "last_used",
        "manual",
        "name",
        "owner",
        "pages",
        "part",
        "pinned_at",
        "pinned_pages",
        "positions",
        "private",
        "programs",
        "queue",
        "released",
        "reserved",
        "rising",
        "stream",
        "stream_seq",
        "table",
        "tokens",
        "transcript",
        "visible",
    )

    def __init__(self, table: ContextTable, id_: int, owner: str, name: str | None) -> None:
        self.table = table
        self.id = id_
        self.owner = owner
        self.name = name
        self.programs: set[str] = set()
        self.released = False
        self.buffered: list[int] = []
        self.transcript: Any = None
        # The sequence, by slot
        self.tokens: array[int] = array("i")
        self.positions: list[int] | None = None  # None: position == slot
        self.rising = True  # positions strictly increase
        self.last = -1  # the largest position
        self.visible: dict[int, Ranges] = {}  # of the slots that saw something else than all slots up to their own
        self.adapters: list[tuple[int, AdapterKey | None]] = []  # (first slot, adapter) of each run
        self.pinned_at: int | None = None  # the first slot that cannot be computed again
        self.private = False  # its rows saw others than those before them now
        # Its KV
        self.pages: list[int] = []
        self.keys: list[bytes] = []  # of the committed pages
        self.committed = 0
        self.computed = 0
        self.reserved = 0  # how many pages behind the committed ones the caller asked for
        self.manual = False  # the caller reserves and commits by itself
        self.charged = 0  # how many pages count towards the limits of its programs
        self.pinned_pages = 0  # and towards that of its owner
        # Its place in the plan
        self.queue: deque[Work] = deque()
        self.part: Part | None = None
        self.stream = 0
        self.stream_seq = 0
        self.last_used = 0

    # What a reader sees

    @property
    def length(self) -> int:
        """Tokens that were run: committed and filled."""
        return len(self.tokens)

    @property
    def cursor(self) -> int:
        """How many tokens are filled behind the last committed page."""
        return len(self.tokens) - self.committed * self.table.page_size

    @property
    def committed_pages(self) -> int:
        return self.committed

    @property
    def last_position(self) -> int | None:
        """The largest position so far, None in an empty context."""
        return self.last if self.last >= 0 else None

    @property
    def uncommitted_pages(self) -> int:
        return max(self.table.limits.pages_for(self.cursor), self.reserved)

    @property
    def busy(self) -> bool:
        """Whether a pass on it is waiting or under way."""
        return bool(self.queue)

    @property
    def pinned(self) -> bool:
        """Whether its KV could not be computed again: adapters change, rows that look forward are one pass."""
        return self.pinned_at is not None

    def position(self, slot: int) -> int:
        return slot if self.positions is None else self.positions[slot]

    def state(self) -> ContextState:
        return ContextState(
            id=self.id,
            name=self.name,
            committed_pages=self.committed,
            cursor=self.cursor,
            buffered=tuple(self.buffered),
            last_position=self.last_position,
            page_size=self.table.page_size,
        )

    # What a caller may do to an idle context

    def set_cursor(self, count: int) -> None:
        """Forget the filled tokens behind the first *count*. `BadRequest` where there are not so many."""
        self._must_be_idle("set_cursor")
        if not 0 <= count <= self.cursor:
            raise BadRequest.at("cursor", f"{self.cursor} tokens are filled, it cannot be {count}")
        self._truncate(self.committed * self.table.page_size + count)

    def rewind(self, count: int) -> None:
        """Forget the last *count* tokens, committed ones too: others keep the page, this context goes on in a copy.

        Passes on it must be over or given up.
        """
        self._must_be_alive()
        if any(work.error is None for work in self.queue):
            raise BadRequest("rewind while a pass of this context is under way; cancel it first")
        if not 0 <= count <= len(self.tokens):
            raise BadRequest.at("count", f"{len(self.tokens)} tokens were run, {count} cannot be forgotten")
        self._truncate(len(self.tokens) - count)

    def reserve_pages(self, count: int) -> None:
        """Have at least *count* pages behind the committed ones. From then on the caller commits by `commit_pages`.

        Other idle contexts are put aside to make room. Raises `OutOfPages` where that is not enough, and
        `LimitExceeded` where one of its programs may not have so many.
        """
        self._must_be_alive()
        if count < 0:
            raise BadRequest.at("pages", f"must be 0 or more, not {count}")
        missing = self.committed + count - len(self.pages)
        if self.computed < len(self.tokens):  # put aside: the pages of its tokens come back with its next pass
            missing = count - self.table.limits.pages_for(self.cursor)
        if missing > 0:
            self.table.charges.claim(self, self.committed + count)
            try:
                self.table.make_room(missing, keep=self)
            except OutOfPages:
                self.table.charges.settle(self)
                raise
            if self.computed >= len(self.tokens):
                self.table.extend(self, missing)
        self.reserved = max(self.reserved, count)
        self.manual = self.manual or count > 0
        self.table.charges.settle(self)

    def release_pages(self, count: int) -> None:
        """Drop the last *count* uncommitted pages, and with each a page's worth of the filled tokens at the end."""
        self._must_be_idle("release_pages")
        if not 0 <= count <= self.uncommitted_pages:
            raise BadRequest.at("pages", f"{self.uncommitted_pages} pages are uncommitted, {count} cannot be released")
        left = self.uncommitted_pages - count
        dropped = min(count * self.table.page_size, self.cursor)
        self.reserved = min(self.reserved, left)
        self._truncate(len(self.tokens) - dropped)

    def commit_pages(self, indices: Sequence[int]) -> None:
        """Commit full uncommitted pages, counted from 0, in that order; their tokens are no longer filled.

        Raises `BadRequest` for a page that is not full, and for positions that are not unique and above the committed
        ones, page by page. Pages that are passed over stay filled and move behind the committed ones.
        """
        self._must_be_idle("commit_pages")
        full = self.cursor // self.table.page_size
        if len(set(indices)) != len(indices) or any(not 0 <= index < full for index in indices):
            raise BadRequest.at("indices", f"{full} pages are full and uncommitted; {list(indices)} are not among them")
        self._check_rising_pages(indices)
        if list(indices) != list(range(len(indices))):
            self.table.charges.check_pinned(self, self.charged - self.pinned_pages)
            self._reorder(indices)
        for _ in indices:
            self.table.commit_page(self)
        self.committed = len(self.keys)
        self.reserved = 0
        self.manual = False
        self.table.trim(self)

    # Inside

    def _must_be_alive(self) -> None:
        if self.released:
            raise NotFound(f"context {self.id} was released")

    def _must_be_idle(self, verb: str) -> None:
        self._must_be_alive()
        if self.queue:
            raise BadRequest(f"{verb} while a pass of this context is under way; wait for its result")

    def _truncate(self, length: int) -> None:
        """Forget the slots from *length* on. A committed page that is cut is filled again, and copied when written."""
        del self.tokens[length:]
        self.committed = min(self.committed, length // self.table.page_size)
        del self.keys[self.committed :]
        if self.positions is not None:
            del self.positions[length:]
            self.last = max(self.positions, default=-1)
            if self.positions == list(range(length)):
                self.positions, self.rising = None, True
        else:
            self.last = length - 1
        self.visible = {slot: seen for slot, seen in self.visible.items() if slot < length}
        while self.adapters and self.adapters[-1][0] >= length:
            self.adapters.pop()
        if self.pinned_at is not None and self.pinned_at >= length:
            self.pinned_at = None
        self.private = self.private and length > 0
        self.computed = min(self.computed, length)
        self.table.trim(self)

    def page_positions(self, index: int) -> Sequence[int]:
        slots = range(index * self.table.page_size, (index + 1) * self.table.page_size)
        return slots if self.positions is None else self.positions[slots.start : slots.stop]

    def _check_rising_pages(self, indices: Sequence[int]) -> None:
        start = self.committed * self.table.page_size
        top = max((self.position(slot) for slot in range(start)), default=-1) if self.positions else start - 1
        floor = top
        seen: set[int] = set()
        for index in indices:
            positions = self.page_positions(self.committed + index)
            if len(set(positions)) != len(positions) or seen.intersection(positions) or min(positions) <= floor:
                raise BadRequest.at("indices", f"page {index}: positions must be unique and above the committed ones")
            if max(positions) <= top:
                raise BadRequest.at("indices", f"page {index}: its last position must be above that of the page before")
            top = max(positions)
            seen.update(positions)

    def _reorder(self, indices: Sequence[int]) -> None:
        """Move uncommitted pages so that *indices* come first. Such a sequence can be neither recomputed nor shared."""
        if self.computed < len(self.tokens):
            raise BadRequest.at("indices", "pages of a context that was put aside are committed in order; run a pass")
        size, start = self.table.page_size, self.committed
        rest = [index for index in range(len(self.pages) - start) if index not in indices]
        order = [start + index for index in (*indices, *rest)]
        positions = [self.position(slot) for slot in range(len(self.tokens))]
        slots = [*range(start * size), *(slot for page in order for slot in range(page * size, (page + 1) * size))]
        slots = [slot for slot in slots if slot < len(self.tokens)]
        self.tokens = array("i", (self.tokens[slot] for slot in slots))
        self.positions = [positions[slot] for slot in slots]
        self.rising = False
        self.pages = self.pages[:start] + [self.pages[page] for page in order]
        self.visible = {slot: seen for slot, seen in self.visible.items() if slot < start * size}
        self.pinned_at, self.private = 0, True
