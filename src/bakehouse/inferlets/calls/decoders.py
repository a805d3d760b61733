"""Tokens to events, for any ids."""

from __future__ import annotations

from bakehouse.engine.errors import BadRequest
from bakehouse.engine.params import Decode
from bakehouse.inferlets.calls.base import Follower, Interface
from bakehouse.inferlets.calls.forms import events


class Decoders(Interface):
    def create(self, model: int, reasoning: bool, tool_use: bool) -> int:
        guest = self._guest
        found = guest.models.get(model)
        for name, flag in (("reasoning", reasoning), ("tool_use", tool_use)):
            if not isinstance(flag, bool):
                raise BadRequest.at(name, f"must be true or false, not {flag!r}")
        guest.decoders.check_room()
        made = found.session.create_decoder(Decode(reasoning=reasoning, tool_use=tool_use))
        return guest.decoders.add(Follower(found, made, guest.room))

    def feed(self, decoder: int, ids: str) -> str:
        found = self._guest.decoders.get(decoder)
        tokens = found.feed(ids, self._guest.limits.message)
        return events(found.model.session.decoder_feed(found.id, tokens))

    def finish(self, decoder: int) -> str:
        found = self._guest.decoders.get(decoder)
        found.forget()
        return events(found.model.session.decoder_finish(found.id))

    def reset(self, decoder: int) -> None:
        found = self._guest.decoders.get(decoder)
        found.model.session.decoder_reset(found.id)
        found.forget()

    def release(self, decoder: int) -> None:
        found = self._guest.decoders.pop(decoder)
        found.model.session.release_decoder(found.id)
        found.forget()
