"""Agentic work, written once for both sides: programs beside the model, and clients that resend their prompts.

A `Chat` is a conversation. What the model is to say is given (`scripts`): a grammar forces it token by token, so that
both sides run the same tokens. The tokenizer has one token per byte, which makes the counts exact.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from . import scripts

#: What programs may use, each with all before it: contexts that are kept, text that is known, drafts.
STAGES = ("contexts", "known", "drafts")


class Part(NamedTuple):
    """A stretch of what the model says: ``known`` before it comes, a ``choice`` from a few words, or ``free``."""

    kind: str
    text: str


class Chat(Protocol):
    def user(self, text: str) -> None:
        """Append a turn of the user, or of a tool."""

    async def say(self, marked: str) -> None:
        """Have the model say this as its next turn. The marks are those of `scripts`."""

    async def fork(self) -> "Chat":
        """The same conversation once more, to go another way."""

    def close(self) -> None: ...


def parts(marked: str) -> list[Part]:
    found = []
    for stretch in re.findall("‹[^›]*›|«[^»]*»|[^‹«]+", marked):
        kind = {"‹": "free", "«": "choice"}.get(stretch[0], "known")
        found.append(Part(kind, stretch if kind == "known" else stretch[1:-1]))
    return found


def plain(marked: str) -> str:
    return "".join(part.text for part in parts(marked))


def pieces(marked: str, stage: str) -> list[tuple[str, str, str]]:
    """(kind, text, stop) of what a program of that stage fills (``known``) and generates: a ``choice`` of one token, or
    ``free`` text up to *stop*, which is not in the text; without one, to the end of the turn."""
    if stage == "contexts":
        return [("free", plain(marked), "")]
    found: list[tuple[str, str, str]] = []
    listed = parts(marked)
    for part, following in zip(listed, [*listed[1:], Part("known", "")], strict=True):
        if part.kind == "choice":  # its first letter tells the word
            found += [("choice", part.text[:1], ""), ("known", part.text[1:], "")]
        else:
            end = re.match(r"\s*\S", following.text) if part.kind == "free" else None
            found.append((part.kind, part.text, end.group() if end else ""))
    return found


async def react(chat: Chat) -> None:
    """Eight calls of tools, whose arguments come from what other tools said, then the answer."""
    chat.user(scripts.REACT_QUESTION)
    for call, result in scripts.REACT_CALLS:
        await chat.say(call)
        chat.user(result)
    await chat.say(scripts.REACT_ANSWER)


async def swarm(chat: Chat) -> None:
    """Four agents that send each other 32 messages; all four are busy at the same time."""
    members = []
    for role in scripts.SWARM_ROLES:
        member = await chat.fork()
        member.user(role)
        members.append(member)
    for messages in scripts.SWARM_MESSAGES:
        await asyncio.gather(*(member.say(message) for member, message in zip(members, messages, strict=True)))
        for number, member in enumerate(members):
            member.user(plain(messages[number - 1]))
    for member in members:
        member.close()


async def tree_of_thought(chat: Chat) -> None:
    """Three levels, two ways on from each step; each step is judged by a fork that asks for one word."""
    chat.user(scripts.TREE_PROBLEM)

    async def think(parent: Chat, path: str) -> None:
        step, word = scripts.TREE_STEPS[path]
        thought = await parent.fork()
        await thought.say(step)
        judge = await thought.fork()
        judge.user(scripts.TREE_JUDGE)
        await judge.say(word)
        judge.close()
        if len(path) < 3:
            thought.user(scripts.TREE_GO_ON)
            await asyncio.gather(think(thought, path + "a"), think(thought, path + "b"))
        thought.close()

    await asyncio.gather(think(chat, "a"), think(chat, "b"))


async def skeleton_of_thought(chat: Chat) -> None:
    """The headings, then all sections at the same time."""
    chat.user(scripts.SKELETON_NOTES)
    outline = await chat.fork()
    outline.user("Give the headings.")
    headings = ", ".join(f'"‹{heading}›"' for heading, _ in scripts.SKELETON_SECTIONS)
    await outline.say(f"[{headings}]")
    outline.close()

    async def write(heading: str, text: str) -> None:
        section = await chat.fork()
        section.user(f"Write: {heading}")
        await section.say(f'{{"section": "{heading}", "text": "{text}"}}')
        section.close()

    await asyncio.gather(*(write(*section) for section in scripts.SKELETON_SECTIONS))


async def prefix_tree(chat: Chat) -> None:
    """Four topics under one handbook, four questions under each."""
    chat.user(scripts.PREFIX_DESK)

    async def leaf(topic: Chat, question: str, answer: str) -> None:
        branch = await topic.fork()
        branch.user(question)
        await branch.say(answer)
        branch.close()

    async def topic(about: str, questions: list[tuple[str, str]]) -> None:
        branch = await chat.fork()
        branch.user(about)
        await asyncio.gather(*(leaf(branch, *each) for each in questions))
        branch.close()

    await asyncio.gather(*(topic(*each) for each in scripts.PREFIX_TOPICS))


async def constrained_json(chat: Chat) -> None:
    """Eight records of one schema, each read out of a line of a note, all at the same time."""
    chat.user(scripts.RECORDS_NOTE)

    async def record(number: int, article: str, name: str, origin: str, kilograms: int, organic: bool) -> None:
        branch = await chat.fork()
        branch.user(f"Line {number}.")
        await branch.say(
            f'{{"article": "‹{article}›", "name": "‹{name}›", "origin": "‹{origin}›", "kilograms": ‹{kilograms}›, '
            f'"organic": «{json.dumps(organic)}»}}'
        )
        branch.close()

    await asyncio.gather(*(record(number, *each) for number, each in enumerate(scripts.RECORDS, 1)))


class Workload(NamedTuple):
    """``system`` is the first turn, the same for all agents; ``copies``: much of what is said stands in the context, in
    stretches that are long enough for drafts to pay; ``agents``: how many work at one time, one where its branches are
    several sequences already."""

    system: str
    play: Callable[[Chat], Awaitable[None]]
    copies: bool = True
    agents: int = 1

    @property
    def stages(self) -> tuple[str, ...]:
        return STAGES if self.copies else STAGES[:-1]


WORKLOADS = {
    "ReAct, 8 tool calls": Workload(scripts.REACT_SYSTEM, react, agents=2),
    "swarm of 4, 32 messages": Workload(scripts.SWARM_SYSTEM, swarm),
    "tree of thought, 3 levels": Workload(scripts.TREE_SYSTEM, tree_of_thought, copies=False),
    "skeleton of thought": Workload(scripts.SKELETON_SYSTEM, skeleton_of_thought),
    "prefix tree": Workload(scripts.PREFIX_SYSTEM, prefix_tree),
    "constrained JSON": Workload(scripts.RECORDS_SYSTEM, constrained_json, copies=False),
}


class Rehearsal:
    """Only notes what will be said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def user(self, text: str) -> None:
        """Nobody reads it."""

    async def say(self, marked: str) -> None:
        self.said.append(marked)

    async def fork(self) -> "Rehearsal":
        return self

    def close(self) -> None:
        """Nothing is held."""


async def rehearse(workload: str) -> list[str]:
    """Each turn that the model will have, marked, without its agent's number."""
    rehearsal = Rehearsal()
    await WORKLOADS[workload].play(rehearsal)
    return rehearsal.said
