"""What the tests of sessions share."""

from __future__ import annotations

import time
from collections.abc import Iterable

from bakehouse.engine.model import ServedModel
from bakehouse.engine.params import Chunk, GenerateRequest
from bakehouse.engine.session import Session
from bakehouse.engine.streams import Stream

DEADLINE_S = 20.0


class Programs:
    """Sessions of one served model, closed together."""

    def __init__(self, served: ServedModel) -> None:
        self._served = served
        self._open: list[Session] = []

    def __call__(self, owner: str = "ada", program: str = "", **options: object) -> Session:
        session = Session(self._served, owner, program, **options)  # type: ignore[arg-type]
        self._open.append(session)
        return session

    def close(self) -> None:
        for session in self._open:
            session.close()


def settled(served: ServedModel) -> None:
    """The books are right, and nobody holds anything any more. Named contexts, which outlive programs, are released."""
    with served.loop.lock:
        for context in list(served.planner.contexts.contexts.values()):
            if not context.programs:
                served.planner.contexts.release(context)
    until = time.monotonic() + DEADLINE_S
    while not served.planner.idle() and time.monotonic() < until:
        time.sleep(0.001)
    with served.loop.lock:
        served.planner.check_integrity()
        assert served.planner.pages.held == 0
        assert not served.planner.contexts.contexts
        assert not served.streams
        stats = served.loop.stats()
    assert stats["jobs"] == 0


def tokens_of(chunks: Iterable[Chunk]) -> list[int]:
    return [token for chunk in chunks for token in chunk.tokens]


def text_context(session: Session, text: str) -> int:
    context = session.create_context()
    session.append_tokens(context, session.encode(text))
    return context


def generate(session: Session, context: int, **request: object) -> list[int]:
    return tokens_of(session.generate(GenerateRequest(context=context, **request)))  # type: ignore[arg-type]


def read(stream: Stream, tokens: int) -> list[int]:
    """Take chunks until there are *tokens*."""
    taken: list[int] = []
    while len(taken) < tokens:
        taken += next(stream).tokens
    return taken
