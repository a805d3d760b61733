"""Best of n: several samples of one prompt, and the one that the model itself finds likeliest."""

from inferlet import Context, Model, Sampler, runtime, session


def main(input: dict) -> dict:
    n, seed, max_tokens = input.get("n", 4), input.get("seed", 1), input.get("max_tokens", 64)
    prompt = Context(Model.load(runtime.models()[0]))
    prompt.user(input.get("prompt", "Describe the smell of fresh bread."))
    prompt.cue()
    prompt.flush()

    # `generate` starts at once and reading comes later, so these run side by side without any `await`.
    streams = []
    for number in range(n):
        sampler = Sampler.multinomial(temperature=input.get("temperature", 0.8), seed=seed + number)
        fork = prompt.fork()
        streams.append(fork.generate(sampler, max_tokens=max_tokens, auto_flush=False, logprobs=1))

    samples: list[dict] = []
    for stream in streams:
        text = stream.text()
        scores = [entry.logprob for entry in stream.logprobs]
        # The mean, because a sum would prefer short answers.
        samples.append({"score": sum(scores) / max(len(scores), 1), "text": text})
        session.send(f"{samples[-1]['score']:7.3f}  {text}")
    best = max(samples, key=lambda sample: sample["score"])
    return {"best": best["text"], "score": best["score"], "samples": samples}
