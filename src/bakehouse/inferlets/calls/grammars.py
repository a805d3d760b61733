"""Matchers and masks. Both stay here; a guest holds their handles."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

from bakehouse.engine.handle import Session
from bakehouse.inferlets.calls.base import Follower, Interface, Model, check_packed, check_size
from bakehouse.inferlets.calls.forms import grammar, texts
from bakehouse.inferlets.calls.masks import Mask
from bakehouse.inferlets.calls.packing import pack, unpack, unpack_ids
from bakehouse.inferlets.calls.results import Once


class Grammars(Interface):
    def create(self, model: int, kind: str, source: str) -> int:
        found = self._guest.models.get(model)
        spec = grammar({"kind": kind, "source": self._text(source)})
        return self._coming(found, lambda: found.session.create_matcher(spec))

    def create_for_tools(self, model: int, tools: str) -> int:
        found = self._guest.models.get(model)
        listed = texts("tools", self._text(tools))
        return self._coming(found, lambda: found.session.create_tool_matcher(listed))

    def accept(self, matcher: int, ids: str) -> None:
        found = self._guest.matchers.get(matcher)
        found.model.session.matcher_accept(found.id, found.feed(ids, self._guest.limits.message))

    def terminated(self, matcher: int) -> bool:
        session, found = self._of(matcher)
        return session.matcher_terminated(found)

    def reset(self, matcher: int) -> None:
        found = self._guest.matchers.get(matcher)
        found.model.session.matcher_reset(found.id)
        found.forget()

    def release(self, matcher: int) -> None:
        found = self._guest.matchers.get(matcher)
        found.model.session.release_matcher(found.id)
        self._guest.matchers.pop(matcher)
        found.forget()

    # Masks

    def next_mask(self, matcher: int) -> int:
        guest = self._guest
        session, found = self._of(matcher)
        guest.masks.check_room()
        return guest.masks.add(Mask(bits=session.matcher_bits(found), size=session.model.vocab_size))

    def create_mask(self, runs: str) -> int:
        guest = self._guest
        guest.masks.check_room()
        packed = check_packed("message", runs, guest.limits.message, "runs")
        unpack_ids(packed, "runs")
        guest.room.take(len(packed))
        return guest.masks.add(Mask(runs=unpack(packed, "runs")))

    def read_mask(self, mask: int) -> str:
        return pack(self._guest.masks.get(mask).read())

    def release_mask(self, mask: int) -> None:
        found = self._guest.masks.pop(mask)
        self._guest.room.give(len(found.runs or b""))

    def _coming(self, model: Model, start: Callable[[], Future[int]]) -> int:
        """A wait for a matcher that is being compiled; it gets its handle when it is taken."""
        guest = self._guest
        kept = guest.matchers.promise()
        try:
            return guest.waits.add(
                lambda: Once(
                    guest.aside.run(start),
                    lambda made: str(guest.matchers.add(Follower(model, made, guest.room))),
                    undo=model.session.release_matcher,
                    over=kept,
                )
            )
        except BaseException:
            kept()
            raise

    def _of(self, matcher: int) -> tuple[Session, int]:
        found = self._guest.matchers.get(matcher)
        return found.model.session, found.id

    def _text(self, text: str) -> str:
        return check_size("message", text, self._guest.limits.message, "source")
