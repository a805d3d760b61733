"""Attention sinks: a window over the latest tokens, and the first few tokens always in sight.

Models put much of their attention on the first tokens, whatever these say. A window that loses sight of them breaks the
model; one that keeps them can go on for very long.
"""

from inferlet import Context, ForwardPass, Model, Sampler, runtime, session


def sink_mask(position: int, sinks: int, window: int) -> list[int]:
    """What the token at *position* sees: the first *sinks* tokens, itself, and the ``window - 1`` before it."""
    first = max(0, position + 1 - window)
    if first <= sinks:
        return [0, position + 1]
    return [0, sinks, first - sinks, position + 1 - first]


def main(input: dict) -> dict:
    model = Model.load(runtime.models()[0])
    sinks, window = input.get("sinks", 4), input.get("window", 32)
    ctx = Context(model)
    ctx.system("You tell long stories.")
    ctx.user(input.get("prompt", "Tell me of the first baker."))
    ctx.cue()
    stops, waiting, at, tokens = set(ctx.stop_tokens()), ctx.buffered_tokens, 0, list[int]()
    while len(tokens) < input.get("max_tokens", 64):
        positions = range(at, at + len(waiting))
        step = ForwardPass(model)
        step.context(ctx)
        step.input_tokens(waiting, list(positions))
        step.attention_mask([sink_mask(position, sinks, window) for position in positions])
        step.sampler([len(waiting) - 1], Sampler.greedy())
        [token] = step.execute().tokens
        if token in stops:
            break
        tokens.append(token)
        at, waiting = at + len(waiting), [token]
    ctx.release()
    text = model.tokenizer().decode(tokens)
    session.send(text)
    return {"text": text, "last_mask": sink_mask(at, sinks, window)}
