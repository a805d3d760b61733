"""Locks of named contexts: one holder each, among all guests of this process. The engine knows none."""

from __future__ import annotations

import threading

from bakehouse.inferlets.sandbox.running import Running

#: Owner, model, name.
Key = tuple[str, str, str]


class Locks:
    """Thread-safe. A guest's locks end with it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._held: dict[Key, Running] = {}

    def acquire(self, key: Key, running: Running) -> bool:
        """Whether *running* has it now; that it had it before is fine."""
        with self._guard:
            holder = self._held.setdefault(key, running)
        if holder is running:
            running.at_end[key] = lambda: self.release(key, running)
        return holder is running

    def free(self, key: Key, running: Running) -> bool:
        """Whether nobody but *running* has it."""
        with self._guard:
            return self._held.get(key, running) is running

    def release(self, key: Key, running: Running) -> bool:
        """Whether it had it."""
        with self._guard:
            if self._held.get(key) is not running:
                return False
            del self._held[key]
        return True
