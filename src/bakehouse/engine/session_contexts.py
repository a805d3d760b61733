"""Calls of a session that run no model: the tokenizer, contexts with their buffers and pages, turns of a chat."""

from __future__ import annotations

from collections.abc import Sequence

from bakehouse.engine.chat.base import EMPTY, Turn
from bakehouse.engine.chat.tools import declaration
from bakehouse.engine.errors import BadRequest
from bakehouse.engine.params import ContextState
from bakehouse.engine.session_base import SessionBase, check_count, check_name, check_text

#: Characters of system texts that a context holds back until the user's turn, in families that write them there.
MAX_HELD = 2**20


class ContextCalls(SessionBase):
    """See `session.Session`."""

    # Tokenizer

    def encode(self, text: str) -> list[int]:
        return self._served.tokenizer.encode(check_text("text", text))

    def decode(self, tokens: Sequence[int]) -> str:
        return self._served.tokenizer.decode([check_count("tokens", token) for token in tokens])

    def vocabulary(self) -> tuple[list[int], list[bytes]]:
        return self._served.tokenizer.vocabulary

    def special_tokens(self) -> tuple[list[int], list[bytes]]:
        ids = sorted(self._served.tokenizer.special_ids)
        return ids, [self._served.tokenizer.token_bytes(token) for token in ids]

    def split_regex(self) -> str:
        return self._served.tokenizer.split_regex()

    # Contexts

    def create_context(self, name: str | None = None) -> int:
        with self._loop.lock:
            self._check_room()
            created = self._planner.contexts.create(self.owner, check_name(name), self.program)
            created.transcript = EMPTY
            return self._keep(created)

    def lookup_context(self, name: str) -> int | None:
        with self._loop.lock:
            self._check_open()
            found = self._planner.contexts.lookup(self.owner, check_text("name", name), self.program)
            return None if found is None else self._keep(found)

    def fork_context(self, context: int, name: str | None = None) -> int:
        """While a stream of the context is open, the child is as if the stream had been closed now."""
        with self._loop.lock:
            self._check_room()
            parent = self._context(context)
            self._check_buffer(len(parent.buffered))
            child = self._planner.contexts.fork(parent, check_name(name), self.program)
            stream = self._served.streams.get(parent)
            if stream is not None:
                stream.cut_fork(child)
            return self._keep(child)

    def release_context(self, context: int) -> None:
        with self._loop.lock:
            found = self._context(context)
            self._cancel_all(self._loop.jobs_of(found))
            stream = self._served.streams.pop(found, None)
            if stream is not None:
                stream.close()
            self._planner.contexts.release(found)
            del self._contexts[context]

    def context_state(self, context: int) -> ContextState:
        with self._loop.lock:
            found = self._context(context)
            return ContextState(
                id=found.id,
                name=found.name,
                committed_pages=found.committed_pages,
                cursor=found.cursor,
                buffered=tuple(found.buffered),
                last_position=found.last_position,
                page_size=self.model.page_size,
            )

    def append_tokens(self, context: int, tokens: Sequence[int]) -> None:
        checked = self._check_tokens("tokens", tokens)
        with self._loop.lock:
            found = self._still(context)
            self._check_buffer(len(checked))
            found.buffered.extend(checked)
            found.transcript = found.transcript.wrote(checked)

    def set_buffer(self, context: int, tokens: Sequence[int]) -> None:
        checked = self._check_tokens("tokens", tokens)
        with self._loop.lock:
            self._check_buffer(len(checked) - len(self._idle(context).buffered))
            self._cut(context).buffered[:] = checked

    def set_cursor(self, context: int, cursor: int) -> None:
        with self._loop.lock:
            self._cut(context).set_cursor(check_count("cursor", cursor))

    def reserve_pages(self, context: int, count: int) -> None:
        with self._loop.lock:
            self._idle(context).reserve_pages(check_count("pages", count))

    def release_pages(self, context: int, count: int) -> None:
        with self._loop.lock:
            self._cut(context).release_pages(check_count("pages", count))

    def commit_pages(self, context: int, indices: Sequence[int]) -> None:
        with self._loop.lock:
            self._idle(context).commit_pages([check_count("indices", index) for index in indices])

    # Chat

    def system(self, context: int, text: str) -> None:
        self._turn(context, Turn("system", text))

    def user(self, context: int, text: str) -> None:
        self._turn(context, Turn("user", text))

    def assistant(self, context: int, text: str) -> None:
        self._turn(context, Turn("assistant", text))

    def cue(self, context: int) -> None:
        self._turn(context, Turn("cue", ""))

    def seal(self, context: int) -> None:
        with self._loop.lock:
            found = self._still(context)
            if not found.buffered or found.buffered[-1] not in self._served.chat.stop_tokens:
                self.append_tokens(context, [self._served.chat.turn_end])

    def equip_tools(self, context: int, tools: Sequence[str]) -> None:
        self._turn(context, declaration(tools))

    def answer_tool(self, context: int, name: str, value: str) -> None:
        self._turn(context, Turn("tool", value, check_text("name", name)))

    def _turn(self, context: int, turn: Turn) -> None:
        """Words become ids without the lock: a long text takes a second, and nobody's tokens would come meanwhile."""
        check_text("text", turn.text)
        written = False
        while not written:
            with self._loop.lock:
                before = self._still(context).transcript
            tokens, after = self._served.chat.add(before, turn)
            if len(after.held) > MAX_HELD:
                raise BadRequest.at("text", f"more than {MAX_HELD} characters wait for the user's turn")
            with self._loop.lock:
                found = self._still(context)
                written = found.transcript is before  # else something came between, and the turn is another
                if written:
                    self._check_buffer(len(tokens))
                    found.buffered.extend(tokens)
                    found.transcript = after
