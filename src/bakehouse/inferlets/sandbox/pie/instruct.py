"""Chats: turns, tools, and what generated tokens mean."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from bakehouse.inferlets.sandbox.linking import Interface
from bakehouse.inferlets.sandbox.pie.base import PARSER, letting_go, packed, said, taken
from bakehouse.inferlets.sandbox.pie.contexts import Context
from bakehouse.inferlets.sandbox.pie.inference import Matcher
from bakehouse.inferlets.sandbox.pie.models import Model, special_tokens
from bakehouse.inferlets.sandbox.running import Running


class Decoder(ABC):
    """A decoder of ours, of whose events one kind is told, one for each feed. A stop token finishes it."""

    reasoning, tools = False, False
    #: What is told where there is nothing to tell.
    idle: Any = ("delta", "")

    def __init__(self, running: Running, model: Model) -> None:
        self.handle = running.calls.decoders.create(model.handle, self.reasoning, self.tools)
        self._stops = set(model.info(running)["stop_tokens"])
        self._events: deque[Any] = deque()

    @abstractmethod
    def told(self, event: list[str]) -> Any:
        """The event in the words of this interface, or None for one of another."""

    def feed(self, running: Running, tokens: list[int]) -> Any:
        plain: list[int] = []
        for token in tokens:
            if token in self._stops:
                self._pass(running, plain)
                self._tell(running.calls.decoders.finish(self.handle))
                running.calls.decoders.reset(self.handle)
                plain = []
            elif self.is_special(token):
                self._pass(running, plain)
                self._events.append(("interrupt", token))
                plain = []
            else:
                plain.append(token)
        self._pass(running, plain)
        return self._events.popleft() if self._events else self.idle

    def is_special(self, token: int) -> bool:
        """Whether to tell of *token* by itself."""
        return False

    def reset(self, running: Running) -> None:
        self._events.clear()
        running.calls.decoders.reset(self.handle)

    def drop(self, running: Running) -> None:
        running.calls.decoders.release(self.handle)

    def _pass(self, running: Running, tokens: list[int]) -> None:
        if tokens:
            self._tell(running.calls.decoders.feed(self.handle, packed(tokens)))

    def _tell(self, events: str) -> None:
        for event in map(self.told, json.loads(events)):
            if event is None:
                continue
            if event[0] == "delta" and self._events and self._events[-1][0] == "delta":
                event = ("delta", self._events.pop()[1] + event[1])
            self._events.append(event)


class Chat(Decoder):
    def __init__(self, running: Running, model: Model) -> None:
        super().__init__(running, model)
        self._special = set(special_tokens(running, model)[0]) - self._stops

    def is_special(self, token: int) -> bool:
        return token in self._special

    def told(self, event: list[str]) -> Any:
        return {"text": ("delta", event[-1]), "done": ("done", event[-1])}.get(event[0])


class Reasoning(Decoder):
    reasoning = True

    def told(self, event: list[str]) -> Any:
        if event == ["thinking", ""]:
            return "start"
        return {"thinking": ("delta", event[-1]), "thinking_done": ("complete", event[-1])}.get(event[0])


class ToolUse(Decoder):
    tools = True
    idle = "idle"

    def told(self, event: list[str]) -> Any:
        if event[0] == "tool_call_start":
            return "start"
        return ("call", (event[1], event[2])) if event[0] == "tool_call" else None


def _turn(role: str) -> Callable[[Running, Context, str], None]:
    def say(running: Running, context: Context, text: str) -> None:
        running.calls.contexts.say(context.mine(running), role, text)

    return say


def _cue(running: Running, context: Context) -> None:
    running.calls.contexts.cue(context.mine(running))


def _seal(running: Running, context: Context) -> None:
    running.calls.contexts.seal(context.mine(running))


def _stops(running: Running, model: Model) -> list[int]:
    return list(model.info(running)["stop_tokens"])


def _equip(running: Running, context: Context, tools: list[str]) -> None:
    running.calls.contexts.equip_tools(context.mine(running), json.dumps(tools))


def _answer(running: Running, context: Context, name: str, value: str) -> None:
    running.calls.contexts.answer_tool(context.mine(running), name, value)


def _matcher(running: Running, model: Model, tools: list[str]) -> Matcher:
    return Matcher(int(taken(running, running.calls.grammars.create_for_tools(model.handle, json.dumps(tools)))))


def _feed(running: Running, decoder: Decoder, tokens: list[int]) -> Any:
    return decoder.feed(running, tokens)


def _reset(running: Running, decoder: Decoder) -> None:
    decoder.reset(running)


def _drop(running: Running, decoder: Decoder) -> None:
    decoder.drop(running)


def _decoder(name: str, kind: type[Decoder]) -> dict[str, Callable[..., Any]]:
    return {
        f"create-decoder(borrow<model>) -> own<{name}-decoder>": kind,
        f"[method]decoder.feed(borrow<{name}-decoder>, list<u32>) -> result<{name}-event, error>": _feed,
        f"[method]decoder.reset(borrow<{name}-decoder>)": _reset,
    }


_in = "borrow<context>"
_CHAT: dict[str, Callable[..., Any]] = {
    f"system({_in}, string)": _turn("system"),
    f"user({_in}, string)": _turn("user"),
    f"assistant({_in}, string)": _turn("assistant"),
    f"cue({_in})": _cue,
    f"seal({_in})": _seal,
    "stop-tokens(borrow<model>) -> list<u32>": _stops,
    **_decoder("chat", Chat),
}
_TOOLS: dict[str, Callable[..., Any]] = {
    f"equip({_in}, list<string>) -> result<_, error>": _equip,
    f"answer({_in}, string, string)": _answer,
    "create-matcher(borrow<model>, list<string>) -> own<matcher>": _matcher,
    **_decoder("tool", ToolUse),
}


def interfaces() -> Iterator[Interface]:
    tables = {"chat": _CHAT, "reasoning": _decoder("reasoning", Reasoning), "tool-use": _TOOLS}
    for name, table in tables.items():
        keys = {"decoder": f"{name.removesuffix('-use')}-decoder"}
        yield Interface(f"pie:instruct/{name}@0.2.0", said, PARSER, table, {"decoder": letting_go(_drop)}, keys)
