"""Agentic work, written once for both sides: programs beside the model, and clients that resend their prompts.

A `Chat` is a conversation. What the model is to say is given: a grammar forces it token by token, so that both sides
run the same tokens. The tokenizer has one token per byte, which makes the counts exact.
"""

import asyncio
import json
from typing import Protocol


class Chat(Protocol):
    def user(self, text: str) -> None:
        """Append a turn of the user, or of a tool."""

    async def say(self, text: str) -> None:
        """Have the model generate *text* as its next turn."""

    async def write(self, parts: list[tuple[bool, str]]) -> None:
        """One turn of which some parts are known before (True) and others are the model's (False)."""

    async def fork(self) -> "Chat":
        """The same conversation once more, to go another way."""

    def close(self) -> None: ...


def text(what: str, size: int) -> str:
    """*size* letters that begin with *what*."""
    return (what + " " + "the quick brown fox jumps over the lazy dog and " * (size // 40 + 1))[:size]


SYSTEM = text("You are a careful assistant with tools.", 256)


async def react(chat: Chat, agent: int) -> None:
    """Eight calls of a tool, each answered, then the answer."""
    chat.user(text(f"question of agent {agent}", 48))
    for call in range(8):
        await chat.say(text(f"call {call} of {agent}", 16))
        chat.user(text(f"result {call} for {agent}", 32))
    await chat.say(text(f"answer of {agent}", 24))


async def swarm(chat: Chat, agent: int) -> None:
    """Four agents that send each other 32 messages; all four are busy at the same time."""
    members = []
    for number in range(4):
        member = await chat.fork()
        member.user(text(f"you are member {number} of swarm {agent}", 32))
        members.append(member)

    for round_ in range(8):
        await asyncio.gather(*(members[each].say(text(f"message {round_} of {each}", 16)) for each in range(4)))
        for each in range(4):
            members[each].user(text(f"message {round_} from {each - 1}", 16))
    for member in members:
        member.close()


async def tree_of_thought(chat: Chat, agent: int) -> None:
    """Three levels, two ways on from each thought; each thought is valued."""
    chat.user(text(f"problem of agent {agent}", 48))

    async def think(parent: Chat, path: str) -> None:
        thought = await parent.fork()
        await thought.say(text(f"thought {path}", 24))
        thought.user("How good is this, from 1 to 9?")
        await thought.say("7")
        if len(path) < 3:
            thought.user("Go on.")
            await asyncio.gather(think(thought, path + "a"), think(thought, path + "b"))
        thought.close()

    await asyncio.gather(think(chat, "a"), think(chat, "b"))


async def skeleton_of_thought(chat: Chat, agent: int) -> None:
    """An outline, then its six points at the same time."""
    chat.user(text(f"topic of agent {agent}", 48))
    await chat.say(text("outline", 32))

    async def point(number: int) -> None:
        branch = await chat.fork()
        branch.user(f"Write point {number}.")
        await branch.say(text(f"point {number}", 32))
        branch.close()

    await asyncio.gather(*(point(number) for number in range(6)))


async def prefix_tree(chat: Chat, agent: int) -> None:
    """Four topics under one long text, four questions under each."""
    chat.user(text(f"handbook of agent {agent}", 192))
    await chat.say("Read.")

    async def leaf(topic: Chat, number: int) -> None:
        branch = await topic.fork()
        branch.user(f"Question {number}?")
        await branch.say(text("because", 16))
        branch.close()

    async def topic(number: int) -> None:
        branch = await chat.fork()
        branch.user(text(f"topic {number}", 48))
        await branch.say("Yes.")
        await asyncio.gather(*(leaf(branch, question) for question in range(4)))
        branch.close()

    await asyncio.gather(*(topic(number) for number in range(4)))


async def constrained_json(chat: Chat, agent: int) -> None:
    """Eight records, whose keys are known and whose values are the model's."""
    chat.user(text(f"notes of agent {agent}", 96))

    async def record(number: int) -> None:
        branch = await chat.fork()
        branch.user(f"Record {number} as JSON.")
        names = ("name", "price", "origin", "stock")
        parts = [(True, "{")]
        for at, name in enumerate(names):
            parts += [
                (True, (", " if at else "") + json.dumps(name) + ": "),
                (False, json.dumps(f"{name[:2]}{number}")),
            ]
        await branch.write([*parts, (True, "}")])
        branch.close()

    await asyncio.gather(*(record(number) for number in range(8)))


WORKLOADS = {
    "ReAct, 8 tool calls": react,
    "swarm of 4, 32 messages": swarm,
    "tree of thought, 3 levels": tree_of_thought,
    "skeleton of thought": skeleton_of_thought,
    "prefix tree": prefix_tree,
    "constrained JSON": constrained_json,
}
