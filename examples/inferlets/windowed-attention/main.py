"""Sliding-window attention on any model: every token sees the last `window` tokens and nothing before.

A mask is a list of run lengths: how many positions are not seen, how many are, and so on. It costs no training and no
change of the model; how well a model bears it is for you to find out.
"""

from inferlet import Context, ForwardPass, Model, Sampler, runtime, session


def window_mask(position: int, window: int) -> list[int]:
    """What the token at *position* sees: itself and the ``window - 1`` before it."""
    hidden = max(0, position + 1 - window)
    return [hidden, position + 1 - hidden]


def generate(ctx: Context, window: int, max_tokens: int) -> list[int]:
    """Greedy decoding of what *ctx* has buffered, from the first token on through the window."""
    stops, tokens, at = set(ctx.stop_tokens()), list[int](), 0
    waiting = ctx.buffered_tokens
    while len(tokens) < max_tokens:
        positions = list(range(at, at + len(waiting)))
        step = ForwardPass(ctx.model)
        step.context(ctx)
        step.input_tokens(waiting, positions)
        step.attention_mask([window_mask(position, window) for position in positions])
        step.sampler([len(waiting) - 1], Sampler.greedy())
        [token] = step.execute().tokens
        if token in stops:
            break
        tokens.append(token)
        at, waiting = at + len(waiting), [token]
    return tokens


def main(input: dict) -> str:
    model = Model.load(runtime.models()[0])
    with Context(model) as ctx:
        ctx.system("You tell long stories.")
        ctx.user(input.get("prompt", "Tell me of the first baker."))
        ctx.cue()
        tokens = generate(ctx, input.get("window", 32), input.get("max_tokens", 64))
    text = model.tokenizer().decode(tokens)
    session.send(text)
    return text
