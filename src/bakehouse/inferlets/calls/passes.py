"""Running the model: a flush, one pass, or a generation inside the engine."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from bakehouse.engine.errors import BadRequest
from bakehouse.engine.handle import Stream
from bakehouse.engine.params import ForwardOutput, ForwardRequest, SamplerKind
from bakehouse.inferlets.calls import forms
from bakehouse.inferlets.calls.base import Bound, Follower, Interface, Model, Table, check_size
from bakehouse.inferlets.calls.late import LateStream
from bakehouse.inferlets.calls.results import Flow, Once
from bakehouse.inferlets.errors import Refused

#: Bytes that a character of a request may take while its pass waits: a token's digit and comma, as an integer object.
PER_CHARACTER = 20


class Passes(Interface):
    def flush(self, context: int) -> int:
        model, found = self._guest.contexts.get(context)
        return self._guest.waits.add(lambda: Once(model.session.flush(found), lambda _: ""))

    def forward(self, model: int, request: str) -> int:
        found = self._guest.models.get(model)
        asked = forms.forward(self._checked(request), self._resolve(found))
        room, size = self._guest.room, len(request) * PER_CHARACTER + self._result_size(found, asked)

        def start() -> Once[ForwardOutput]:
            room.take(size)
            try:
                future = found.session.forward(asked)
            except BaseException:
                room.give(size)
                raise
            return Once(future, forms.output, over=lambda: room.give(size))

        return self._guest.waits.add(start)

    def generate(self, context: int, request: str) -> int:
        guest = self._guest
        model, found = guest.contexts.get(context)
        asked, whole = forms.generate(found, self._checked(request), self._resolve(model))

        def start() -> Stream:
            return model.session.generate(asked)

        if asked.grammar is None:
            return guest.waits.add(lambda: Flow(start(), forms.item, whole))
        grammar = asked.grammar

        def compiled() -> Future[Any]:  # on a worker thread, which leaves it in the compiler's cache
            return model.session.compile(grammar)

        return guest.waits.add(lambda: Flow(LateStream(guest.aside.run(compiled), start), forms.item, whole))

    def whole(self, generation: int) -> None:
        self._guest.waits.gather(generation)

    def _result_size(self, model: Model, asked: ForwardRequest) -> int:
        """Bytes of the distributions and embeddings of a pass. Raises `Refused` where they are more than a file's."""
        size, limit = 0, self._guest.limits.file
        for at in asked.samplers:
            if at.sampler.kind is SamplerKind.DIST:
                size += len(at.indices) * 8 * (at.sampler.entries or model.info.vocab_size)
            elif at.sampler.kind is SamplerKind.EMBEDDING:
                size += len(at.indices) * 4 * model.info.hidden_size
        if size > limit:
            raise Refused(f"file: the results of a pass may have at most {limit} bytes, not {size}", field="file")
        return size

    def _checked(self, request: str) -> str:
        return check_size("message", request, self._guest.limits.message, "request")

    def _resolve(self, model: Model) -> Mapping[str, forms.Resolve]:
        guest, size = self._guest, model.info.vocab_size
        return {
            "context": lambda handle: _of(guest.contexts, handle, model),
            "matcher": lambda handle: _of(guest.matchers, handle, model),
            "adapter": lambda handle: _of(guest.tunings, handle, model),
            "mask": lambda handle: guest.masks.get(handle).packed(size),
            "logit_mask": lambda handle: guest.masks.get(handle).packed(size),
        }


def _of(table: Table[Bound] | Table[Follower], handle: object, model: Model) -> int:
    """The engine's id of what *handle* is, which must be of *model*."""
    found = table.get(handle)
    if found.model is not model:
        raise BadRequest(
            f"handle {handle} belongs to model {found.model.info.name}, the pass is one of {model.info.name}"
        )
    return found.id
