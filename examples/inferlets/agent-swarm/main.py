"""A swarm: a leader hands out work over a queue, workers take it as they are free, and send back what they made.

With ``apart`` every worker is an instance of its own, spawned from this same program; else they are coroutines of this
one. The messages are the same, since topics belong to the owner and not to an instance.
"""

import asyncio
import json

from inferlet.aio import Context, Model, Sampler, messaging, runtime, session

JOBS = [f"Describe bread number {number} of the menu." for number in range(1, 9)]
END = "end"


async def work(swarm: str, name: str, max_tokens: int) -> str:
    """Take jobs until there are none left. How many it did."""
    done = 0
    with Context(Model.load(runtime.models()[0])) as trained:
        trained.system(f"You are {name}, and you write menus.")
        await trained.flush()
        while (job := await messaging.pull(f"{swarm}/jobs")) != END:
            with trained.fork() as ctx:
                ctx.user(job)
                text = await ctx.generate_text(Sampler.top_p(), max_tokens=max_tokens)
            messaging.push(f"{swarm}/done", json.dumps({"by": name, "job": job, "text": text}))
            done += 1
    return str(done)


async def main(input: dict) -> dict | str:
    swarm, max_tokens = input.get("swarm", runtime.instance_id()), input.get("max_tokens", 24)
    if "worker" in input:
        return await work(swarm, input["worker"], max_tokens)
    jobs, names = input.get("jobs", JOBS), [f"agent-{number}" for number in range(input.get("agents", 4))]

    async def start(name: str) -> int:
        if input.get("apart"):
            told = json.dumps({"worker": name, "swarm": swarm, "max_tokens": max_tokens})
            return int(await runtime.spawn("agent-swarm@1.0.0", [told]))
        return int(await work(swarm, name, max_tokens))

    for job in [*jobs, *(END for _ in names)]:
        messaging.push(f"{swarm}/jobs", job)
    workers = asyncio.gather(*map(start, names))
    made = []
    for _ in jobs:
        made.append(json.loads(await messaging.pull(f"{swarm}/done")))
        session.send(f"{made[-1]['by']}: {made[-1]['text']}")
    counts = dict(zip(names, await workers, strict=True))
    return {"made": {item["job"]: item["text"] for item in made}, "counts": counts}
