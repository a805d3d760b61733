"""The smallest inferlet: one question, one answer. All of it runs at launch, from top to bottom."""

from inferlet import Context, Model, Sampler, runtime, session

model = Model.load(runtime.models()[0])

with Context(model) as ctx:
    ctx.system("You are a baker. Answer in one short sentence.")
    ctx.user("What makes a good loaf of bread?")
    session.send(ctx.generate_text(Sampler.top_p(), max_tokens=64))
