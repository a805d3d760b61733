"""One agent beside the model: its conversation is a context, a branch of it a fork."""

import json
import re

from inferlet.aio import Context, Grammar, Model, Sampler, runtime
from workloads import SYSTEM, WORKLOADS


class ContextChat:
    def __init__(self, context: Context, said: list[int]) -> None:
        self.context, self.said = context, said

    def user(self, text: str) -> None:
        self.context.user(text)

    async def say(self, text: str) -> None:
        await self.write([(False, text)])

    async def write(self, parts: list[tuple[bool, str]]) -> None:
        self.context.cue()
        for known, text in parts:
            if known:
                self.context.fill(text)
            else:
                forced = Grammar.from_regex(re.escape(text))
                got = await self.context.generate_text(
                    Sampler.greedy(), max_tokens=len(text), logit_mask=forced, auto_flush=False
                )
                assert got == text, (got, text)
            self.said[0] += len(text)
        self.context.seal()

    async def fork(self) -> "ContextChat":
        await self.context.flush()  # what branches have in common is run once
        return ContextChat(self.context.fork(), self.said)

    def close(self) -> None:
        self.context.release()


async def main(input: dict) -> str:
    said = [0]
    with Context(Model.load(runtime.models()[0])) as context:
        context.system(SYSTEM)
        await WORKLOADS[input["workload"]](ContextChat(context, said), input["agent"])
    return json.dumps(said[0])
