"""A watermark: text that a program can recognise as its own, by sampling from distributions itself.

Half of the vocabulary is "green", another half after every token. Green tokens are made likelier when the text is
written. Who knows the key counts them: of a text that was not marked half are green, give or take.
"""

import hashlib
from itertools import pairwise
from math import exp, sqrt
from random import Random

from inferlet import Context, ForwardPass, Model, Sampler, runtime, session

KEY = "bakehouse"


def is_green(before: int, token: int) -> bool:
    return hashlib.blake2b(f"{KEY} {before} {token}".encode(), digest_size=1).digest()[0] < 128


def z_score(tokens: list[int]) -> float:
    """How many standard deviations more green tokens than chance gives. Above 4 is no accident."""
    pairs = list(pairwise(tokens))
    green = sum(is_green(before, token) for before, token in pairs)
    return (green - len(pairs) / 2) / sqrt(max(len(pairs), 1) / 4)


def write(prompt: Context, count: int, boost: float, dice: Random) -> list[int]:
    """*count* tokens, drawn from the 64 likeliest each time, the green ones e**boost times as likely."""
    stops, tokens = set(prompt.stop_tokens()), list[int]()
    with prompt.fork() as ctx:
        waiting = ctx.buffered_tokens
        while len(tokens) < count:
            step = ForwardPass(prompt.model)
            step.context(ctx)
            step.input_tokens(waiting)
            step.sampler([len(waiting) - 1], Sampler.dist(1.0, 64))
            [(ids, weights)] = step.execute().distributions
            before = waiting[-1]
            marked = [
                0.0 if token in stops else weight * exp(boost * is_green(before, token))
                for token, weight in zip(ids, weights, strict=True)
            ]
            waiting = dice.choices(list(ids), marked)
            tokens += waiting
    return tokens


def main(input: dict) -> dict:
    model = Model.load(runtime.models()[0])
    count, dice = input.get("tokens", 100), Random(input.get("seed", 1))
    with Context(model) as prompt:
        prompt.user(input.get("prompt", "Tell me about your bakery."))
        prompt.cue()
        prompt.flush()
        marked = write(prompt, count, input.get("boost", 4.0), dice)
        plain = write(prompt, count, 0.0, dice)
    text = model.tokenizer().decode(marked)
    session.send(text)
    return {"text": text, "marked": z_score(marked), "plain": z_score(plain)}
