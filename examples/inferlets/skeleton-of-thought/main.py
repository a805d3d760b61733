"""Skeleton of thought: first the points of an answer, then all of them written out at the same time.

A grammar holds the skeleton to a JSON list, so it can be taken apart. One point costs as long as all of them.
"""

import asyncio
import json

from inferlet.aio import Context, Grammar, Model, Sampler, runtime, session


def list_of(points: int) -> Grammar:
    """A list of that many short texts."""
    items = {"type": "string", "pattern": "^[A-Za-z ]{3,40}$"}
    schema = {"type": "array", "items": items, "minItems": points, "maxItems": points}
    return Grammar.from_json_schema(json.dumps(schema))


async def expand(question: Context, point: str, max_tokens: int) -> str:
    with question.fork() as ctx:
        ctx.user(f"Write one or two sentences about this point only: {point}")
        return await ctx.generate_text(Sampler.top_p(), max_tokens=max_tokens)


async def main(input: dict) -> dict:
    points, max_tokens = input.get("points", 4), input.get("max_tokens", 48)
    with Context(Model.load(runtime.models()[0])) as question:
        question.system("You answer in clear points.")
        question.user(input.get("question", "How is bread baked?"))
        await question.flush()
        with question.fork() as ctx:
            ctx.user(f"List {points} points of your answer as a JSON list of texts.")
            skeleton = json.loads(await ctx.generate_text(Sampler.top_p(), logit_mask=list_of(points)))
        session.send("\n".join(f"{n}. {point}" for n, point in enumerate(skeleton, 1)))
        texts = await asyncio.gather(*(expand(question, point, max_tokens) for point in skeleton))
    return {"skeleton": skeleton, "answer": "\n\n".join(texts)}
