"""Several answers at once: forks of one prompt, gathered. The engine runs them in one batch, the prompt only once."""

import asyncio

from inferlet.aio import Context, Model, Sampler, runtime, session


async def answer(asked: Context, manner: str, max_tokens: int) -> str:
    with asked.fork() as ctx:
        ctx.user(f"Answer {manner}.")
        text = await ctx.generate_text(Sampler.top_p(), max_tokens=max_tokens)
    session.send(f"{manner}: {text}")
    return text


async def main(input: dict) -> dict:
    model = Model.load(runtime.models()[0])
    manners = input.get("manners", ["in one word", "like a poet", "like a chemist", "for a child"])
    with Context(model) as asked:
        asked.system("You are a baker.")
        asked.user(input.get("question", "What is sourdough?"))
        await asked.flush()
        answers = await asyncio.gather(*(answer(asked, manner, input.get("max_tokens", 48)) for manner in manners))
    return dict(zip(manners, answers, strict=True))
