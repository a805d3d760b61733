"""One agent beside the model: its conversation is a context, a branch of it a fork.

It works in one of three stages, so that each technique can be seen alone: ``contexts`` keeps what was said instead of
sending it again; ``known`` fills what is known instead of having it generated; ``drafts`` also proposes what stands in
the context already, for the engine to verify.
"""

import json
import re
from collections import defaultdict

from inferlet.aio import Context, Grammar, Matcher, Model, PromptLookup, Sampler, runtime
from work.workloads import WORKLOADS, pieces, plain, rehearse

#: A token is a byte here: five alike are about a word, and make it likely that the next ones are alike too.
DRAFT = PromptLookup(tokens=16, longest=16, shortest=5)


class Forced:
    """Matchers that hold the model to its script, made before the work begins, as a program's own grammars would be."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._made: dict[str, list[Matcher]] = defaultdict(list)

    async def prepare(self, text: str) -> None:
        matcher = await Matcher.create(Grammar("regex", re.escape(text)), self._model.tokenizer())
        self._made[text].append(matcher)

    def take(self, text: str) -> Matcher:
        return self._made[text].pop()


class ContextChat:
    def __init__(self, context: Context, asked: dict, forced: Forced, said: list[int]) -> None:
        self.context, self.asked, self.forced, self.said = context, asked, forced, said

    def user(self, text: str) -> None:
        self.context.user(numbered(text, self.asked))

    async def say(self, marked: str) -> None:
        marked = numbered(marked, self.asked)
        self.context.cue()
        for part, text, stop in pieces(marked, self.asked["stage"]):
            if part == "known":
                self.context.fill(text)
            else:
                await self.generate(part, text, stop)
        self.context.seal()
        self.said[0] += len(plain(marked))

    async def generate(self, part: str, text: str, stop: str) -> None:
        got = await self.context.generate_text(
            Sampler.greedy(),
            max_tokens=1 if part == "choice" else 256,
            logit_mask=self.forced.take(text + stop),
            auto_flush=False,
            stop=[stop] if stop else [],
            draft=DRAFT if self.asked["stage"] == "drafts" else None,
        )
        assert got == text, (got, text)

    async def fork(self) -> "ContextChat":
        await self.context.flush()  # what branches have in common is run once
        return ContextChat(self.context.fork(), self.asked, self.forced, self.said)

    def close(self) -> None:
        self.context.release()


def numbered(text: str, asked: dict) -> str:
    return text.replace("####", f"{asked['agent']:04}")


async def main(input: dict) -> str:
    model = Model.load(runtime.models()[0])
    forced, said, workload = Forced(model), [0], input["workload"]
    for marked in await rehearse(workload):
        for part, text, stop in pieces(numbered(marked, input), input["stage"]):
            if part != "known":
                await forced.prepare(text + stop)
    with Context(model) as context:
        context.system(WORKLOADS[workload].system)
        await WORKLOADS[workload].play(ContextChat(context, input, forced, said))
    return json.dumps(said[0])
