"""One process as a client listens to it: its entries become frames when there is room for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from bakehouse.inferlets.base import Failure, Outcome
from bakehouse.inferlets.dialogue.frames import MAX_FRAME, Frame, encode, fits, with_bytes
from bakehouse.inferlets.dialogue.outgoing import Source
from bakehouse.inferlets.errors import NotRunning
from bakehouse.inferlets.processes import Attachment, Entry, Process


class Listening(Source):
    """*over* is called with the process's id when its last event was taken."""

    def __init__(self, process: Process, over: Callable[[str], None]) -> None:
        self.process = process
        self._over = over
        self.attachment: Attachment

    def attach(self, news: Callable[[], None], after: int | None) -> None:
        """Raises `Attached`."""
        self.attachment = self.process.attach(news, after)

    def frames(self) -> list[Frame]:
        try:
            entries = self.attachment.read(1)
        except NotRunning:
            return []  # detached while it was in line
        if not entries:
            return []
        entry = entries[0]
        if entry.kind == "ended":
            self.attachment.detach()
            self._over(self.process.launch.id)
        return frames_of(self.process.launch.id, entry)


def frames_of(process: str, entry: Entry) -> list[Frame]:
    head: dict[str, Any] = {"event": entry.kind, "process": process, "seq": entry.number}
    value = entry.value
    if isinstance(value, bytes):
        return list(with_bytes(head, value))
    if isinstance(value, Outcome):
        failure = value.failure
        frame = encode({**head, **({"result": value.result} if failure is None else {"error": asdict(failure)})})
        if not fits(frame):
            text = f"what it ended with has {len(frame)} characters; a frame has {MAX_FRAME} bytes"
            frame = encode({**head, "error": asdict(Failure("too_large", text))})
        return [frame]
    return [encode({**head, "missed" if entry.kind == "gap" else "text": value})]
