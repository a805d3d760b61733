"""The pool of KV pages: who holds which, which are kept because their content may be wanted again.

A page is free, held (its count of holders is above zero) or cached (no holder, but a key by which it is found). Counts
are of holders; a **committed** page has a key, is never written again and may have many holders. A page without a key
is written only by its one holder.
"""

from __future__ import annotations

from collections import OrderedDict

from bakehouse.engine.errors import OutOfPages
from bakehouse.engine.plan.runs import FreeRuns


class PagePool:
    def __init__(self, total: int) -> None:
        self.total = total
        self.holders = [0] * total
        self.key_of: list[bytes | None] = [None] * total
        self.evictions = 0
        self._free = FreeRuns(total)
        self._cached: OrderedDict[int, None] = OrderedDict()  # least recently held first
        self._by_key: dict[bytes, int] = {}

    @property
    def free(self) -> int:
        return self._free.count

    @property
    def cached(self) -> int:
        return len(self._cached)

    @property
    def held(self) -> int:
        return self.total - self._free.count - len(self._cached)

    @property
    def available(self) -> int:
        """How many `allocate` could give: the free ones, and the cached ones that it would evict."""
        return self._free.count + len(self._cached)

    def counts(self) -> dict[str, int]:
        return {
            "pages": self.total,
            "pages_free": self.free,
            "pages_held": self.held,
            "pages_cached": self.cached,
        }

    def allocate(self, count: int, after: int | None = None) -> list[int]:
        """*count* pages with one holder each, behind page *after* where that is free. Evicts cached pages as needed.

        Raises `OutOfPages`, and then has taken none.
        """
        if count > self.available:
            raise OutOfPages(f"{count} pages are needed and {self.available} of {self.total} can be had")
        while self._free.count < count:
            self._evict()
        pages = self._free.take(count, after)
        for page in pages:
            self.holders[page] = 1
        return pages

    def hold(self, page: int) -> None:
        """One holder more; a cached page leaves the cache."""
        if not self.holders[page]:
            del self._cached[page]
        self.holders[page] += 1

    def release(self, page: int) -> None:
        """One holder less; the last one leaves a committed page in the cache and frees any other."""
        self.holders[page] -= 1
        if self.holders[page]:
            return
        if self.key_of[page] is None:
            self._free.give(page)
        else:
            self._cached[page] = None

    def writable(self, page: int) -> bool:
        """Whether its holder may write it: nobody else holds it, and it is not committed."""
        return self.holders[page] == 1 and self.key_of[page] is None

    def find(self, key: bytes) -> int | None:
        """The committed page with that content, if it is still there. Takes no hold of it."""
        return self._by_key.get(key)

    def publish(self, page: int, key: bytes) -> int:
        """Commit *page* under *key*. Where another page has that content already, it is held instead of *page*.

        Returns the page that the caller now holds.
        """
        known = self._by_key.get(key)
        if known is None:
            self._by_key[key] = page
            self.key_of[page] = key
            return page
        if known != page:
            self.hold(known)
            self.release(page)
        return known

    def forget_cached(self) -> None:
        """Evict everything that nobody holds."""
        while self._cached:
            self._evict()

    def _evict(self) -> None:
        page, _ = self._cached.popitem(last=False)
        key = self.key_of[page]
        if key is not None:
            del self._by_key[key]
        self.key_of[page] = None
        self.evictions += 1
        self._free.give(page)

    def problems(self) -> list[str]:
        """What is wrong with the books by themselves; nothing when they are right."""
        found = []
        free = [page for start, length in self._free.runs() for page in range(start, start + length)]
        held = [page for page, count in enumerate(self.holders) if count > 0]
        every = sorted(free + held + list(self._cached))
        if every != list(range(self.total)):
            found.append(f"free {len(free)} + held {len(held)} + cached {len(self._cached)} is not each page once")
        if len(free) != self._free.count:
            found.append(f"{len(free)} pages are free and {self._free.count} are counted")
        if any(count < 0 for count in self.holders):
            found.append("a page has fewer than no holders")
        if any(self.key_of[page] is not None for page in free):
            found.append("a free page has a key")
        if any(self.key_of[page] is None for page in self._cached):
            found.append("a cached page has no key")
        keyed = {key: page for page, key in enumerate(self.key_of) if key is not None}
        if keyed != self._by_key:
            found.append("pages and keys do not name each other")
        return found
