"""Graph of thought: thoughts that branch, and meet again. Parts are worked on apart and then merged in pairs.

Summaries of the documents are the leaves; two summaries become one, until one is left. All of a level run together.
"""

import asyncio

from inferlet.aio import Context, Model, Sampler, runtime, session

DOCUMENTS = [
    "Rye needs a sour dough. It keeps for a week.",
    "Wheat rises with yeast. It is best on the first day.",
    "Spelt is an old grain. Its dough is soft and wants little kneading.",
    "Oats hold water. A handful keeps a loaf moist.",
    "Barley is malted. A spoon of malt feeds the yeast.",
]


async def ask(system: Context, text: str, max_tokens: int) -> str:
    with system.fork() as ctx:
        ctx.user(text)
        return await ctx.generate_text(Sampler.greedy(), max_tokens=max_tokens)


async def merge(system: Context, thoughts: list[str], max_tokens: int) -> list[str]:
    """One level up: each pair becomes one thought, an odd one goes on as it is."""
    pairs = list(zip(thoughts[::2], thoughts[1::2], strict=False))
    rest = thoughts[len(pairs) * 2 :]
    asked = (ask(system, f"Make one summary of these two:\n1. {a}\n2. {b}", max_tokens) for a, b in pairs)
    return [*await asyncio.gather(*asked), *rest]


async def main(input: dict) -> dict:
    documents, max_tokens = input.get("documents", DOCUMENTS), input.get("max_tokens", 32)
    with Context(Model.load(runtime.models()[0])) as system:
        system.system("You summarise in one sentence.")
        await system.flush()
        leaves = (ask(system, f"Summarise: {document}", max_tokens) for document in documents)
        levels = [await asyncio.gather(*leaves)]
        while len(levels[-1]) > 1:
            session.send(f"{len(levels[-1])} thoughts")
            levels.append(await merge(system, levels[-1], max_tokens))
    return {"levels": levels, "summary": levels[-1][0]}
