"""Training without gradients: an adapter learns to say a word, by trying random changes and keeping what helped.

A candidate is a seed. The engine makes the noise from it again wherever it is needed, so all candidates of a generation
run in one batch, and an update sends seeds and scores only.
"""

import asyncio
from math import log

from inferlet.aio import Adapter, ForwardPass, Model, Sampler, runtime, session, zo

PROMPTS = ["The best thing in the morning is ", "We bake ", "A slice of ", "Butter goes on ", "He smelled of ", "More "]


async def likelihood(model: Model, adapter: Adapter, seed: int, prompt: list[int], word: list[int]) -> float:
    """The log-probability of *word* after *prompt*, by one pass with the candidate of *seed*."""
    step = ForwardPass(model)
    step.input_tokens([*prompt, *word[:-1]])
    step.sampler(range(len(prompt) - 1, len(prompt) + len(word) - 1), Sampler.dist())
    step.adapter(adapter)
    zo.adapter_seed(step, seed)
    rows = (await step.execute()).distributions
    chances = (dict(zip(ids, found, strict=True))[token] for token, (ids, found) in zip(word, rows, strict=True))
    return sum(log(max(chance, 1e-30)) for chance in chances)


async def main(input: dict) -> dict:
    model = Model.load(runtime.models()[0])
    population, sigma = input.get("population", 16), input.get("sigma", 0.01)
    prompts = [model.tokenizer().encode(prompt) for prompt in input.get("prompts", PROMPTS)]
    word = model.tokenizer().encode(input.get("word", "bread"))
    adapter = await Adapter.create(model, input.get("adapter", f"zo-{runtime.instance_id()}"))
    await zo.initialize(adapter, 8, 16.0, population_size=population, mu_fraction=0.5, initial_sigma=sigma)

    async def score(seed: int) -> float:
        """Of one candidate, over all prompts; seed 0 is the mean, without noise."""
        return sum(await asyncio.gather(*(likelihood(model, adapter, seed, prompt, word) for prompt in prompts)))

    history = [await score(0)]
    for number in range(input.get("rounds", 10)):
        seeds = [1 + number * population + member for member in range(population)]
        await zo.update(adapter, await asyncio.gather(*map(score, seeds)), seeds, max_sigma=5 * sigma)
        history.append(await score(0))
        session.send(f"round {number + 1}: {history[-1]:.2f}")
    if path := input.get("save"):
        await adapter.save(path)
    await adapter.remove()
    return {"before": history[0], "after": history[-1], "history": history}
