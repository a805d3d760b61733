"""Prompt lookup: where a text repeats itself, what followed last time is proposed, and verified in one pass.

The answer is the same as without, and comes in fewer passes. Drafting is the program's own business: any function from
tokens to tokens will do. The engine keeps those drafts that it would have chosen, and drops the others and their KV.
"""

from inferlet import Context, ForwardPass, Model, Output, Sampler, runtime, session


def lookup(tokens: list[int], longest: int, count: int) -> list[int]:
    """What followed the last time that *tokens* ended as they do now; nothing where that is new."""
    for length in range(longest, 0, -1):
        end = tokens[-length:]
        for start in range(len(tokens) - length - 1, -1, -1):
            if tokens[start : start + length] == end:
                return tokens[start + length : start + length + count]
    return []


def main(input: dict) -> dict:
    model = Model.load(runtime.models()[0])
    count, most = input.get("drafts", 6), input.get("max_tokens", 96)
    ctx = Context(model)
    ctx.user(input.get("prompt", "Say this ten times: the cat sat on the mat and the dog ate the bread."))
    ctx.cue()
    stops, seen, waiting = set(ctx.stop_tokens()), ctx.buffered_tokens, ctx.buffered_tokens
    answer: list[int] = []
    passes = 0
    while len(answer) < most and not stops & set(answer):
        step = ForwardPass(model)
        step.context(ctx)
        step.input_tokens(waiting)
        step.speculative_tokens(lookup(seen, longest=3, count=count))
        step.sampler([len(waiting) - 1], Sampler.greedy())
        match step.execute():
            case Output.TokensWithSpeculation(accepted=new):  # the drafts that held, and one token more
                pass
            case Output.Tokens(value=new):  # there was nothing to propose
                pass
        passes += 1
        seen = seen + new
        answer += new
        waiting = new[-1:]  # those before it have their KV already
    ctx.release()
    end = next((at for at, token in enumerate(answer) if token in stops), len(answer))
    answer = answer[: min(end, most)]
    text = model.tokenizer().decode(answer)
    session.send(text)
    return {"text": text, "tokens": len(answer), "passes": passes}
