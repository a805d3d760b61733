"""Tree of thought: several next thoughts per line of thinking, a mark for each, and only the best lines go on.

A thought is a fork. The mark is one digit, held to that by a grammar, and asked of a fork of its own, so that the
question never stands in the line of thinking itself.
"""

import asyncio
from dataclasses import dataclass

from inferlet.aio import Context, Grammar, Model, Sampler, runtime, session


@dataclass
class Line:
    """One line of thinking: the context that holds it, its thoughts, and the mark of the last one."""

    context: Context
    thoughts: list[str]
    mark: int = 0


async def think(line: Line, seed: int, digit: Grammar, max_tokens: int) -> Line:
    ctx = line.context.fork()
    ctx.user("What is the next step? One sentence.")
    thought = await ctx.generate_text(Sampler.multinomial(temperature=0.8, seed=seed), max_tokens=max_tokens)
    ctx.seal()
    with ctx.fork() as judge:
        judge.user("How promising is this, from 0 to 9? Answer with one digit.")
        mark = int(await judge.generate_text(Sampler.greedy(), logit_mask=digit))
    return Line(ctx, [*line.thoughts, thought], mark)


async def main(input: dict) -> dict:
    model = Model.load(runtime.models()[0])
    breadth, keep, depth = input.get("breadth", 3), input.get("keep", 2), input.get("depth", 3)
    digit = Grammar.from_regex("[0-9]")
    root = Context(model)
    root.system("You solve problems step by step.")
    root.user(input.get("problem", "Plan the night shift of a small bakery."))
    await root.flush()
    lines = [Line(root, [])]
    for level in range(depth):
        tries = [(line, 1 + level * 1000 + i * breadth + j) for i, line in enumerate(lines) for j in range(breadth)]
        grown = await asyncio.gather(*(think(line, seed, digit, input.get("max_tokens", 32)) for line, seed in tries))
        for line in lines:
            line.context.release()
        grown.sort(key=lambda line: line.mark, reverse=True)
        for line in grown[keep:]:
            line.context.release()
        lines = grown[:keep]
        session.send(f"level {level + 1}: {[line.mark for line in lines]}")
    return {"mark": lines[0].mark, "thoughts": lines[0].thoughts}
