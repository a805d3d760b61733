"""Contexts: their names, buffers and pages, and the turns of a chat."""

from __future__ import annotations

import orjson

from bakehouse.engine.errors import BadRequest
from bakehouse.engine.handle import Session
from bakehouse.inferlets.calls.base import Bound, Interface, check_packed, check_size
from bakehouse.inferlets.calls.forms import texts
from bakehouse.inferlets.calls.packing import unpack_ids

ROLES = ("system", "user", "assistant")


class Contexts(Interface):
    def create(self, model: int, name: str | None) -> int:
        guest = self._guest
        found = guest.models.get(model)
        guest.contexts.check_room()
        return guest.contexts.add(Bound(found, found.session.create_context(name)))

    def lookup(self, model: int, name: str) -> int | None:
        guest = self._guest
        found = guest.models.get(model)
        guest.contexts.check_room()
        context = found.session.lookup_context(name)
        return None if context is None else guest.contexts.enter(Bound(found, context))

    def fork(self, context: int, name: str | None) -> int:
        guest = self._guest
        model, parent = guest.contexts.get(context)
        guest.contexts.check_room()
        return guest.contexts.add(Bound(model, model.session.fork_context(parent, name)))

    def release(self, context: int) -> None:
        model, found = self._guest.contexts.pop(context)
        model.session.release_context(found)

    def state(self, context: int) -> str:
        session, found = self._of(context)
        state = session.context_state(found)
        told = {
            "name": state.name,
            "committed_pages": state.committed_pages,
            "cursor": state.cursor,
            "buffered": state.buffered,
            "last_position": state.last_position,
            "page_size": state.page_size,
        }
        return orjson.dumps(told).decode()

    # Buffer and pages

    def append(self, context: int, ids: str) -> None:
        session, found = self._of(context)
        session.append_tokens(found, unpack_ids(self._bulk(ids)))

    def set_buffer(self, context: int, ids: str) -> None:
        session, found = self._of(context)
        session.set_buffer(found, unpack_ids(self._bulk(ids)))

    def set_cursor(self, context: int, cursor: int) -> None:
        session, found = self._of(context)
        session.set_cursor(found, cursor)

    def reserve_pages(self, context: int, count: int) -> None:
        session, found = self._of(context)
        session.reserve_pages(found, count)

    def release_pages(self, context: int, count: int) -> None:
        session, found = self._of(context)
        session.release_pages(found, count)

    def commit_pages(self, context: int, indices: str) -> None:
        session, found = self._of(context)
        session.commit_pages(found, unpack_ids(self._bulk(indices), "indices"))

    # Turns

    def say(self, context: int, role: str, text: str) -> None:
        session, found = self._of(context)
        if role not in ROLES:
            raise BadRequest.at("role", f"must be one of {', '.join(ROLES)}, not {role!r}")
        getattr(session, role)(found, self._text(text))

    def cue(self, context: int) -> None:
        session, found = self._of(context)
        session.cue(found)

    def seal(self, context: int) -> None:
        session, found = self._of(context)
        session.seal(found)

    def equip_tools(self, context: int, tools: str) -> None:
        session, found = self._of(context)
        session.equip_tools(found, texts("tools", self._text(tools)))

    def answer_tool(self, context: int, name: str, value: str) -> None:
        session, found = self._of(context)
        session.answer_tool(found, self._text(name), self._text(value))

    def _of(self, context: int) -> tuple[Session, int]:
        found = self._guest.contexts.get(context)
        return found.model.session, found.id

    def _text(self, text: str) -> str:
        return check_size("message", text, self._guest.limits.message, "text")

    def _bulk(self, ids: str) -> str:
        return check_packed("message", ids, self._guest.limits.message, "ids")
