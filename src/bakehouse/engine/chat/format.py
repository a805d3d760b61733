"""The chat format of one model: its template where it has one and that can say, else the table of its family."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from bakehouse.engine.chat.base import ChatFormat, Decoder, Transcript, Turn
from bakehouse.engine.chat.decode import ThinkSyntax
from bakehouse.engine.chat.family import THINK, Family, Piece, Typed
from bakehouse.engine.chat.jinja import ChatTemplate
from bakehouse.engine.chat.rendering import TemplateTurns
from bakehouse.engine.chat.tools import declared
from bakehouse.engine.errors import BadRequest, ModelRefused
from bakehouse.engine.tokenizer.base import Tokenizer

_ROLES = ("system", "user", "assistant", "tool", "tools", "cue")


@dataclass(frozen=True, slots=True)
class ChatOptions:
    """What templates are told: whether to think, and what day it is (None: the clock's)."""

    enable_thinking: bool = True
    date: datetime | None = None


class FamilyFormat(ChatFormat):
    """One family with one tokenizer. ``eos`` are further ids that end a generation, from the model's configuration."""

    def __init__(
        self,
        family: Family,
        tokenizer: Tokenizer,
        *,
        template: str | None = None,
        special_tokens: dict[str, str] | None = None,
        eos: Sequence[int] = (),
        options: ChatOptions | None = None,
    ) -> None:
        """Raises `ModelRefused` for a template that is not Jinja, or if no token ends a turn."""
        self.family = family.name
        self.options = options or ChatOptions()
        self._family = family
        self._tokenizer = tokenizer
        self._given = (template, dict(special_tokens or {}), tuple(eos))
        self._template = self._compile()
        self.turn_end, self._glue = self._find_turn_end()
        self.stop_tokens = self._find_stops()
        self._think = self._find_think()

    def with_options(self, options: ChatOptions) -> FamilyFormat:
        """The same format, told other things."""
        template, special_tokens, eos = self._given
        return FamilyFormat(
            self._family, self._tokenizer, template=template, special_tokens=special_tokens, eos=eos, options=options
        )

    def add(self, transcript: Transcript, turn: Turn) -> tuple[list[int], Transcript]:
        if turn.role not in _ROLES:
            raise BadRequest.at("role", f"unknown role {turn.role!r}; there are {', '.join(_ROLES)}")
        sealed = transcript.tail[-1:] == (self.turn_end,)
        transcript = self._settle(transcript)
        glue = list(self._glue) if sealed else []
        if turn.role == "system" and self._must_wait(transcript, turn):
            return glue, self._hold(transcript, turn)
        ids = self._by_template(transcript, turn, sealed=sealed)
        if ids is None:
            ids = glue + self._by_table(transcript, turn)
        waits = transcript.held if turn.role == "system" else ""
        after = replace(transcript, turns=(*transcript.turns, turn), held=waits, started=True)
        return ids, after

    def decoder(self, *, reasoning: bool = False, tool_use: bool = False) -> Decoder:
        think = self._think if reasoning else None
        return self._family.decoder(self._tokenizer, self.stop_tokens, think, tool_use=tool_use)

    # Where a conversation stands

    def _settle(self, transcript: Transcript) -> Transcript:
        """Make a turn of what was generated after a cue."""
        tail, turns = transcript.tail, transcript.turns
        cued = bool(turns) and turns[-1].role == "cue"
        if not tail:
            return replace(transcript, plain=True) if cued else transcript
        if not cued or transcript.plain:
            return replace(transcript, tail=(), plain=True, started=True)
        words = tail[:-1] if tail[-1] in self.stop_tokens or tail[-1] == self.turn_end else tail
        said = Turn("assistant", self._tokenizer.decode(words))
        return replace(transcript, tail=(), turns=(*turns[:-1], said))

    def _must_wait(self, transcript: Transcript, turn: Turn) -> bool:
        """True if the template, or else the family, writes a system text only with the user's turn."""
        template, turns = self._template, self._as_messages(transcript.turns)
        if template is not None and turns is not None and not transcript.plain:
            first = not transcript.started
            if first or template.ids(turns, turn, started=True) is not None:
                return not template.shows(() if first else turns, (*turns, turn), turn.text)
        return self._family.system(turn.text) is None

    def _hold(self, transcript: Transcript, turn: Turn) -> Transcript:
        held = f"{transcript.held}\n\n{turn.text}" if transcript.held else turn.text
        return replace(transcript, turns=(*transcript.turns, turn), held=held)

    # By the template

    def _by_template(self, transcript: Transcript, turn: Turn, *, sealed: bool) -> list[int] | None:
        if self._template is None or transcript.plain or turn.role == "tools":
            return None
        if transcript.held and turn.role not in ("user", "system"):
            return None
        turns = self._as_messages(transcript.turns)
        if turns is None:
            return None
        end = self._tokenizer.decode([self.turn_end]) if sealed else None
        ids = self._template.ids(turns, turn, started=transcript.started, end=end)
        if ids is not None and transcript.held and not self._template.shows((), (*turns, turn), transcript.held):
            return None
        return ids

    def _as_messages(self, turns: tuple[Turn, ...]) -> tuple[Turn, ...] | None:
        """Turns that the template knows: a declaration becomes the system turn that it is written as."""
        result = []
        for turn in turns:
            if turn.role == "tools":
                text = self._family.tools_text(declared(turn))
                if text is None:
                    return None
                turn = Turn("system", text)
            result.append(turn)
        return tuple(turn for turn in result if turn.role != "cue")

    # By the family's table

    def _by_table(self, transcript: Transcript, turn: Turn) -> list[int]:
        pieces = self._pieces(transcript, turn)
        bos = self._family.bos and not transcript.started and not transcript.plain
        return [*(self._bos() if bos else ()), *self._encode(pieces, after_mark=turn.role == "user")]

    def _pieces(self, transcript: Transcript, turn: Turn) -> list[Piece]:
        family, held = self._family, transcript.held
        if turn.role == "user":
            return family.user(turn.text, held)
        early: list[Piece] = family.user(held) if held and turn.role != "system" else []
        if turn.role == "cue":
            return early + family.cue(thinking=self.options.enable_thinking)
        if turn.role == "tool":
            return early + family.tool(turn)
        if turn.role == "tools":
            return early + family.tools(declared(turn))
        if turn.role == "assistant":
            return early + family.assistant(turn.text)
        return family.system(turn.text) or []

    def _encode(self, pieces: Sequence[Piece], *, after_mark: bool) -> list[int]:
        """Each piece by itself, so that no token joins a delimiter and a text; but see `Family.joined`.

        *after_mark*: a special token or nothing comes before, where SentencePiece puts its space.
        """
        if self._family.joined:
            pieces = self._join(pieces)
        ids: list[int] = []
        for piece in pieces:
            start = after_mark and not ids
            if isinstance(piece, Typed):
                ids += self._tokenizer.encode_text(piece.text, start=start)
            else:
                ids += self._tokenizer.encode(piece) if start else self._tokenizer.encode_next(piece)
        return ids

    def _join(self, pieces: Sequence[Piece]) -> list[Piece]:
        """One text, cut only where a special token's name was typed."""
        joined: list[Piece] = [""]
        for piece in pieces:
            first, *others = self._tokenizer.without_specials(piece.text) if isinstance(piece, Typed) else [piece]
            joined[-1] = f"{joined[-1]}{first}"
            joined += others
        return joined

    # What the tokenizer and the template tell

    def _compile(self) -> TemplateTurns | None:
        template, special_tokens, _ = self._given
        if template is None:
            return None
        date = self.options.date
        dated = {"date_string": date.strftime("%d %b %Y")} if date else {}
        compiled = ChatTemplate(template, {**special_tokens, **dated}, date)
        return TemplateTurns(compiled, self._tokenizer, enable_thinking=self.options.enable_thinking)

    def _bos(self) -> list[int]:
        name = self._given[1].get("bos_token")
        token = None if name is None else self._tokenizer.id_of(name)
        return [] if token is None else [token]

    def _find_turn_end(self) -> tuple[int, tuple[int, ...]]:
        """The token after the assistant's words and what follows it, by the template, else by the family."""
        if self._template is not None:
            last, within = self._template.ending()
            text = last if within is None or within.startswith(last) else within
            ids = self._tokenizer.encode_next(text)
            if ids and ids[0] in self._tokenizer.special_ids:
                follows = text is last and ids[1:]
                return ids[0], tuple(follows or self._family_glue(ids[0]))
        token = self._tokenizer.id_of(self._family.turn_end)
        if token is not None:
            return token, self._family_glue(token)
        if self._eos():
            return self._eos()[0], ()
        raise ModelRefused(
            f"its tokenizer has no token that ends a turn: neither {self._family.turn_end} nor an eos_token"
        )

    def _family_glue(self, turn_end: int) -> tuple[int, ...]:
        if not self._family.glue or turn_end != self._tokenizer.id_of(self._family.turn_end):
            return ()
        return tuple(self._tokenizer.encode_next(self._family.glue))

    def _eos(self) -> list[int]:
        _, special_tokens, eos = self._given
        named = special_tokens.get("eos_token")
        token = None if named is None else self._tokenizer.id_of(named)
        return [*eos, *([] if token is None else [token])]

    def _find_stops(self) -> tuple[int, ...]:
        stops = [self._tokenizer.id_of(name) for name in self._family.stops]
        if self._family.turn_end_stops:
            stops.append(self.turn_end)
        return tuple(dict.fromkeys(token for token in [*stops, *self._eos()] if token is not None))

    def _find_think(self) -> ThinkSyntax | None:
        template = self._given[0] or ""
        markers = self._family.think
        if markers is None and (THINK[0] in template or self._tokenizer.id_of(THINK[0]) is not None):
            markers = THINK
        if markers is None:
            return None
        cue = self._cue_text()
        inside = cue.rstrip().endswith(markers[0])
        return ThinkSyntax(*markers, inside=inside, newline=self._family.think_newline, spaced=cue.endswith("\n"))

    def _cue_text(self) -> str:
        if self._template is not None and (cue := self._template.cue()):
            return cue
        pieces = self._family.cue(thinking=self.options.enable_thinking)
        return "".join(piece.text if isinstance(piece, Typed) else piece for piece in pieces)
