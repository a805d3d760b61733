"""Jacobi decoding: guess several tokens ahead, ask for all of them in one pass, and guess again with the answers.

A guess is right when the pass gives it back. Every pass settles one token at least, and sometimes several; the text is
that of plain greedy decoding.
"""

from inferlet import Context, ForwardPass, Model, Sampler, runtime, session


def run(ctx: Context, waiting: list[int], guess: list[int]) -> list[int]:
    """What the model says after the last of *waiting*, and after each token of *guess*."""
    step = ForwardPass(ctx.model)
    step.context(ctx)
    step.input_tokens([*waiting, *guess])
    first = len(waiting) - 1
    step.sampler(list(range(first, first + len(guess) + 1)), Sampler.greedy())
    return step.execute().tokens


def settled(guess: list[int], answers: list[int]) -> int:
    """How many of *guess* are what the model says when it reads what stands before them."""
    return next((at for at, token in enumerate(guess) if answers[at] != token), len(guess))


def main(input: dict) -> dict:
    model = Model.load(runtime.models()[0])
    ahead, most = input.get("ahead", 4), input.get("max_tokens", 64)
    ctx = Context(model)
    ctx.user(input.get("prompt", "Count to twenty."))
    ctx.cue()
    ctx.flush()
    stops, waiting, guess = set(ctx.stop_tokens()), ctx.buffered_tokens, list[int]()
    answer: list[int] = []
    passes = 0
    while len(answer) < most and not stops & set(answer):
        # A full page is final and cannot be cut, so no pass may fill the page with guesses.
        room = max(0, ctx.tokens_per_page - 1 - ctx.cursor - len(waiting))
        guess = (guess + waiting * ahead)[: min(ahead, room)]
        answers = run(ctx, waiting, guess)
        passes += 1
        right = settled(guess, answers)
        ctx.cursor -= len(guess) - right
        answer += answers[: right + 1]
        waiting, guess = answers[right : right + 1], answers[right + 1 :]
    ctx.release()
    end = next((at for at, token in enumerate(answer) if token in stops), len(answer))
    answer = answer[: min(end, most)]
    text = model.tokenizer().decode(answer)
    session.send(text)
    return {"text": text, "tokens": len(answer), "passes": passes}
