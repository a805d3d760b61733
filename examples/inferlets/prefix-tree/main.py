"""Many prompts that share their beginnings, as a tree: every node is run once, every leaf is answered.

The four leaves below would send the handbook four times as separate requests. Here it is run once, each topic once.
"""

import asyncio

from inferlet.aio import Context, Model, Sampler, runtime

HANDBOOK = "You work in a bakery. Flour is weighed, ovens are hot, and customers are always greeted. "

TREE = {
    "We talk about bread.": ["How long does it keep?", "Which flour is best?"],
    "We talk about the oven.": ["How hot should it be?", "When is it cleaned?"],
}


async def grow(parent: Context, topic: str, questions: list[str], max_tokens: int) -> dict[str, str]:
    with parent.fork() as node:
        node.user(topic)
        node.assistant("Gladly.")
        await node.flush()
        answers = await asyncio.gather(*(leaf(node, question, max_tokens) for question in questions))
    return dict(zip(questions, answers, strict=True))


async def leaf(node: Context, question: str, max_tokens: int) -> str:
    with node.fork() as ctx:
        ctx.user(question)
        return await ctx.generate_text(Sampler.greedy(), max_tokens=max_tokens)


async def main(input: dict) -> dict:
    tree, max_tokens = input.get("tree", TREE), input.get("max_tokens", 32)
    with Context(Model.load(runtime.models()[0])) as root:
        root.system(input.get("handbook", HANDBOOK))
        await root.flush()
        grown = await asyncio.gather(*(grow(root, topic, questions, max_tokens) for topic, questions in tree.items()))
    return dict(zip(tree, grown, strict=True))
