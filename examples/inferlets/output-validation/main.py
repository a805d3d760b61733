"""How likely would the model have said this? Texts are scored without sampling anything.

The tokens of a text are forced through one pass that answers, for each of them, the distribution that it was drawn
from. Their log-probabilities tell which of several answers the model itself would give, and whether one is acceptable.
"""

from math import log

from inferlet import Context, ForwardPass, Model, Sampler, runtime, session

NEVER = -50.0


def score(question: Context, text: str) -> float:
    """The mean log-probability of the tokens of *text* as an answer to *question*."""
    model = question.model
    with question.fork() as ctx:
        waiting, answer = ctx.buffered_tokens, model.tokenizer().encode(text)
        step = ForwardPass(model)
        step.context(ctx)
        step.input_tokens([*waiting, *answer[:-1]])
        # The row of the last prompt token says what comes first, each row of the answer what comes after it.
        first = len(waiting) - 1
        step.sampler(list(range(first, first + len(answer))), Sampler.dist())
        rows = step.execute().distributions
    total = 0.0
    for token, (ids, probabilities) in zip(answer, rows, strict=True):
        probability = dict(zip(ids, probabilities, strict=True)).get(token, 0.0)
        total += log(probability) if probability > 0 else NEVER
    return total / len(answer)


def main(input: dict) -> dict:
    model = Model.load(runtime.models()[0])
    answers = input.get("answers", ["Yeast makes it rise.", "Bricks make it rise.", "xq#7 zzv !!"])
    with Context(model) as question:
        question.user(input.get("question", "Why does bread rise?"))
        question.cue()
        question.flush()
        scores = {answer: score(question, answer) for answer in answers}
    for answer, value in scores.items():
        session.send(f"{value:8.3f}  {answer}")
    best = max(scores, key=lambda answer: scores[answer])
    return {"best": best, "valid": scores[best] >= input.get("threshold", -5.0), "scores": scores}
