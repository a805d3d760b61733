"""One completion: what `generate_text` makes of a prompt, and nothing else."""

from inferlet import Context, Model, Sampler, runtime


def main(input: dict) -> str:
    with Context(Model.load(runtime.models()[0])) as ctx:
        ctx.fill(input["prompt"])
        return ctx.generate_text(Sampler.greedy(), max_tokens=input["tokens"], auto_flush=False)
