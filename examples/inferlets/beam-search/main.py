"""Beam search in a few lines: a beam is a context, and to try a next token is to fork one.

The first `depth` tokens are searched: of all beams and their likeliest next tokens the best `width` go on. Each beam
that is left then writes its answer to the end. All beams run in one batch.
"""

import asyncio
from dataclasses import dataclass, field
from math import log

from inferlet.aio import Context, ForwardPass, Model, Sampler, runtime, session


@dataclass
class Beam:
    context: Context
    score: float = 0.0
    tokens: list[int] = field(default_factory=list)


async def likeliest(model: Model, beam: Beam, count: int) -> list[tuple[int, float]]:
    """The *count* most likely next tokens of *beam* and their log-probabilities. Runs what the context has buffered."""
    step = ForwardPass(model)
    step.context(beam.context)
    waiting = beam.context.buffered_tokens
    step.input_tokens(waiting)
    step.sampler([len(waiting) - 1], Sampler.dist(1.0, count))
    [(ids, probabilities)] = (await step.execute()).distributions
    return [(token, log(p)) for token, p in zip(ids, probabilities, strict=True)]


async def search(model: Model, root: Context, width: int, depth: int) -> list[Beam]:
    stops = set(root.stop_tokens())
    beams = [Beam(root)]
    for _ in range(depth):
        found = await asyncio.gather(*(likeliest(model, beam, width + len(stops)) for beam in beams))
        options = [
            (beam, token, beam.score + gained)
            for beam, following in zip(beams, found, strict=True)
            for token, gained in following
            if token not in stops
        ]
        options.sort(key=lambda option: option[2], reverse=True)
        grown = []
        for beam, token, score in options[:width]:
            child = Beam(beam.context.fork(), score, [*beam.tokens, token])
            child.context.fill_tokens([token])
            grown.append(child)
        for beam in beams:
            beam.context.release()
        beams = grown
    return beams


async def finish(model: Model, beam: Beam, max_tokens: int) -> dict:
    rest = await beam.context.generate_text(Sampler.greedy(), max_tokens=max_tokens, auto_flush=False)
    return {"score": beam.score, "text": model.tokenizer().decode(beam.tokens) + rest}


async def main(input: dict) -> dict:
    model = Model.load(runtime.models()[0])
    root = Context(model)
    root.user(input.get("prompt", "Write one line about rye bread."))
    root.cue()
    await root.flush()
    beams = await search(model, root, input.get("width", 3), input.get("depth", 6))
    answers = await asyncio.gather(*(finish(model, beam, input.get("max_tokens", 48)) for beam in beams))
    for answer in answers:
        session.send(f"{answer['score']:8.3f}  {answer['text']}")
    return {"best": answers[0]["text"], "beams": answers}
