"""Tokens to events, for any ids."""

from __future__ import annotations

from bakehouse.engine.errors import BadRequest
from bakehouse.engine.handle import Session
from bakehouse.engine.params import Decode
from bakehouse.inferlets.calls.base import Bound, Interface, check_packed
from bakehouse.inferlets.calls.forms import events
from bakehouse.inferlets.calls.packing import unpack_ids


class Decoders(Interface):
    def create(self, model: int, reasoning: bool, tool_use: bool) -> int:
        guest = self._guest
        found = guest.models.get(model)
        for name, flag in (("reasoning", reasoning), ("tool_use", tool_use)):
            if not isinstance(flag, bool):
                raise BadRequest.at(name, f"must be true or false, not {flag!r}")
        guest.decoders.check_room()
        made = found.session.create_decoder(Decode(reasoning=reasoning, tool_use=tool_use))
        return guest.decoders.add(Bound(found, made))

    def feed(self, decoder: int, ids: str) -> str:
        session, found = self._of(decoder)
        limit = self._guest.limits.file
        return events(session.decoder_feed(found, unpack_ids(check_packed("file", ids, limit, "ids"))))

    def finish(self, decoder: int) -> str:
        session, found = self._of(decoder)
        return events(session.decoder_finish(found))

    def reset(self, decoder: int) -> None:
        session, found = self._of(decoder)
        session.decoder_reset(found)

    def release(self, decoder: int) -> None:
        session, found = self._of(decoder)
        session.release_decoder(found)
        self._guest.decoders.pop(decoder)

    def _of(self, decoder: int) -> tuple[Session, int]:
        found = self._guest.decoders.get(decoder)
        return found.model.session, found.id
