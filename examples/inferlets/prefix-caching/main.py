"""A long prompt that outlives its program: run once, kept under a name, and picked up by every later launch.

The engine shares equal prefixes by itself as long as it has room for them. A name is a promise: what has one stays.
"""

from inferlet import Context, Model, Sampler, runtime, session

HANDBOOK = " ".join(f"Rule {number}: weigh the flour, warm the water, and do not hurry." for number in range(1, 41))


def handbook(model: Model, name: str, text: str) -> tuple[Context, bool]:
    """The context that holds the handbook, and whether an earlier launch had left it."""
    found = Context.lookup(model, name)
    if found is not None:
        return found, True
    ctx = Context(model, name=name)
    ctx.system(text)
    ctx.flush()
    return ctx, False


def main(input: dict) -> dict:
    model = Model.load(runtime.models()[0])
    name = input.get("name", "handbook")
    kept, found = handbook(model, name, input.get("handbook", HANDBOOK))
    print("found it" if found else "read it")
    # Never write into what others will look up: fork it.
    with kept.fork() as ctx:
        ctx.user(input.get("question", "May I hurry?"))
        answer = ctx.generate_text(Sampler.greedy(), max_tokens=input.get("max_tokens", 48))
    if input.get("forget"):
        kept.release()
    session.send(answer)
    return {"found": found, "answer": answer}
