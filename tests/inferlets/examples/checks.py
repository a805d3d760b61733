"""What each example promises, looked at from outside: a small input, and what must hold of what came out.

A check runs its example on a `Stage` (natively or in the sandbox) and may ask the same engine for plain generation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Protocol

import jsonschema_rs

from tests.inferlets.examples.support import Ran

Turns = list[tuple[str, str]]


class Stage(Protocol):
    #: The dummy says letters only, so that pieces of its text can be put together, and does not end at once. A random
    #: model says any bytes, and may have nothing to say.
    dummy: bool

    def run(self, name: str, /, **given: Any) -> Ran: ...

    def greedy(self, turns: Turns, max_tokens: int) -> str:
        """What the engine says to *turns* (role and text) without any program's cunning."""
        ...


Check = Callable[[Stage], None]
CHECKS: dict[str, Check] = {}


def check(function: Check) -> Check:
    CHECKS[function.__name__.replace("_", "-")] = function
    return function


@check
def hello_world(stage: Stage) -> None:
    done = stage.run("hello-world")
    assert done.result == ""
    assert len(done.messages) == 1
    assert done.messages[0] or not stage.dummy


@check
def text_completion(stage: Stage) -> None:
    done = stage.run("text-completion", max_tokens=48)
    assert len(done.messages) > 4 or not stage.dummy
    assert "".join(done.messages) == done.result


@check
def beam_search(stage: Stage) -> None:
    done = stage.run("beam-search", width=3, depth=2, max_tokens=6)
    beams = done.result["beams"]
    scores = [beam["score"] for beam in beams]
    assert len(beams) == len(done.messages) == 3
    assert scores == sorted(scores, reverse=True) and done.result["best"] == beams[0]["text"]
    if stage.dummy:  # of a random model, some have less to say
        wide = stage.run("beam-search", width=3, depth=6, max_tokens=24)
        assert wide.work["steps"] < 2 * (6 + 24)  # and not 3 times that
    narrow = stage.run("beam-search", width=1, depth=2, max_tokens=6).result["beams"]
    # In two steps the greedy path cannot have been lost.
    assert scores[0] >= narrow[0]["score"] - 1e-4
    if stage.dummy:
        assert narrow[0]["text"] == stage.greedy([("user", "Write one line about rye bread.")], 8)


@check
def parallel_generation(stage: Stage) -> None:
    done = stage.run("parallel-generation", max_tokens=24)
    assert done.work["steps"] < 2 * 24  # all four in one batch; one after the other, they would take 4 times 24
    assert list(done.result) == ["in one word", "like a poet", "like a chemist", "for a child"]
    assert sorted(done.messages) == sorted(f"{manner}: {text}" for manner, text in done.result.items())
    assert len(set(done.result.values())) == 4 or not stage.dummy


@check
def prefix_tree(stage: Stage) -> None:
    handbook, tree = "Greet everybody. " * 20, {"Bread.": ["Why?", "How?"], "Oven.": ["When?"]}
    done = stage.run("prefix-tree", handbook=handbook, tree=tree, max_tokens=8)
    assert done.work["rows"] < 2.5 * len(handbook)  # three leaves, and the handbook is run once
    for topic, questions in tree.items():
        for question in questions:
            turns = [("system", handbook), ("user", topic), ("assistant", "Gladly."), ("user", question)]
            assert done.result[topic][question] == stage.greedy(turns, 8)


@check
def tree_of_thought(stage: Stage) -> None:
    done = stage.run("tree-of-thought", breadth=2, keep=2, depth=2, max_tokens=8)
    assert len(done.result["thoughts"]) == 2
    assert done.work["steps"] < 40  # side by side; one after the other, six thoughts of 8 and their marks
    assert 0 <= done.result["mark"] <= 9
    for number, message in enumerate(done.messages, 1):
        marks = json.loads(message.removeprefix(f"level {number}: "))
        assert len(marks) == 2 and marks == sorted(marks, reverse=True)
    assert marks[0] == done.result["mark"]


@check
def skeleton_of_thought(stage: Stage) -> None:
    done = stage.run("skeleton-of-thought", points=3, max_tokens=8)
    skeleton = done.result["skeleton"]
    assert len(skeleton) == 3 and all(re.fullmatch("[A-Za-z ]{3,40}", point) for point in skeleton)
    assert done.messages == ["\n".join(f"{number}. {point}" for number, point in enumerate(skeleton, 1))]
    assert done.result["answer"].count("\n\n") >= 2


@check
def graph_of_thought(stage: Stage) -> None:
    done = stage.run("graph-of-thought", max_tokens=8)
    assert done.work["steps"] < 6 * 8  # four levels, and nine thoughts in them
    levels = done.result["levels"]
    assert [len(level) for level in levels] == [5, 3, 2, 1]
    assert levels[1][2] == levels[0][4]  # the odd one went on as it was
    turns = [("system", "You summarise in one sentence.")]
    asked = f"Make one summary of these two:\n1. {levels[2][0]}\n2. {levels[2][1]}"
    assert levels[3][0] == stage.greedy([*turns, ("user", asked)], 8)


@check
def best_of_n(stage: Stage) -> None:
    done = stage.run("best-of-n", n=4, max_tokens=10, seed=3)
    samples = done.result["samples"]
    assert len(samples) == len(done.messages) == 4
    assert done.work["steps"] < 3 * 10  # side by side, and not 4 times 10
    assert all(sample["score"] < 0 for sample in samples)
    assert done.result["score"] == max(sample["score"] for sample in samples)
    assert {"text": done.result["best"], "score": done.result["score"]} in samples
    again = stage.run("best-of-n", n=4, max_tokens=10, seed=3).result
    assert [sample["text"] for sample in again["samples"]] == [sample["text"] for sample in samples]


BREAD = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": "^[A-Z][a-z]{2,11}$"},
        "flour": {"enum": ["rye", "wheat", "spelt"]},
        "minutes": {"type": "integer", "minimum": 5, "maximum": 90},
        "vegan": {"type": "boolean"},
    },
    "required": ["name", "flour", "minutes", "vegan"],
    "additionalProperties": False,
}


@check
def constrained_json(stage: Stage) -> None:
    for prompt in ("Invent a bread.", "Quick!"):
        done = stage.run("constrained-json", prompt=prompt)
        assert jsonschema_rs.is_valid(BREAD, done.result)
        assert json.loads(done.messages[0]) == done.result
    assert stage.run("constrained-json", prompt=prompt, by_hand=True).result == done.result
    small = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    assert set(stage.run("constrained-json", schema=small).result) == {"ok"}


@check
def output_validation(stage: Stage) -> None:
    question = "Why does bread rise?"
    own = stage.greedy([("user", question)], 12)
    given = {"question": question, "answers": [own, "xq#7 zzv !!"]}
    done = stage.run("output-validation", **given, threshold=-1000.0)
    scores = done.result["scores"]
    assert list(scores) == given["answers"] and all(value < 0 for value in scores.values())
    assert done.result["valid"] and scores[done.result["best"]] == max(scores.values())
    if stage.dummy:
        assert done.result["best"] == own
    assert not stage.run("output-validation", **given, threshold=-1e-9).result["valid"]


@check
def watermarking(stage: Stage) -> None:
    done = stage.run("watermarking", tokens=64)
    assert done.result["marked"] > 4 > 3 > done.result["plain"] > -3


STORY = [("system", "You tell long stories."), ("user", "Tell me of the first baker.")]


@check
def windowed_attention(stage: Stage) -> None:
    whole = stage.run("windowed-attention", window=1000, max_tokens=16).result
    assert whole == stage.greedy(STORY, 16)
    assert stage.run("windowed-attention", window=8, max_tokens=16).result != whole


@check
def attention_sink(stage: Stage) -> None:
    whole = stage.run("attention-sink", window=1000, max_tokens=16).result
    assert whole["text"] == stage.greedy(STORY, 16)
    part = stage.run("attention-sink", window=8, sinks=3, max_tokens=16).result
    assert part["text"] != whole["text"]
    assert part["last_mask"][:2] == [0, 3] and part["last_mask"][3] == 8


@check
def jacobi_decoding(stage: Stage) -> None:
    done = stage.run("jacobi-decoding", ahead=4, max_tokens=40).result
    assert done["text"] == stage.greedy([("user", "Count to twenty.")], 40)
    assert 0 < done["passes"] < done["tokens"]


@check
def prompt_lookup_decoding(stage: Stage) -> None:
    prompt = "bread and bread and bread and bread and"
    done = stage.run("prompt-lookup-decoding", prompt=prompt, max_tokens=40).result
    assert done["text"] == stage.greedy([("user", prompt)], 40)
    assert 0 < done["passes"] < done["tokens"]


@check
def agent_react(stage: Stage) -> None:
    done = stage.run("agent-react", server="bakery", steps=3)
    trace = done.result["trace"]
    assert [json.loads(message) for message in done.messages] == trace
    assert 2 <= len(trace) <= 3
    assert [step["action"] for step in trace].index("answer") == len(trace) - 1
    assert trace[-1]["arguments"]["text"] == done.result["answer"]
    for step in trace[:-1]:
        assert step["observation"] == TOOLS[step["action"]](**step["arguments"])


TOOLS = {"flour": lambda loaves: f"{loaves * 500} g", "price": lambda of: {"rye": "4.20", "wheat": "3.80"}[of]}


@check
def agent_swarm(stage: Stage) -> None:
    jobs = [f"job {number}" for number in range(6)]
    done = stage.run("agent-swarm", agents=3, jobs=jobs, max_tokens=6)
    assert sorted(done.result["made"]) == jobs
    assert list(done.result["counts"]) == ["agent-0", "agent-1", "agent-2"]
    assert sum(done.result["counts"].values()) == len(done.messages) == 6


@check
def prefix_caching(stage: Stage) -> None:
    given = {"name": "kept", "handbook": "Weigh the flour. " * 20, "max_tokens": 8}
    first = stage.run("prefix-caching", **given)
    second = stage.run("prefix-caching", **given, forget=True)
    assert second.work["rows"] < len(given["handbook"]) / 2  # the question, and not the handbook
    third = stage.run("prefix-caching", **given, forget=True)
    assert [done.result["found"] for done in (first, second, third)] == [False, True, False]
    assert first.result["answer"] == second.result["answer"] == third.result["answer"]
    turns = [("system", given["handbook"]), ("user", "May I hurry?")]
    assert first.result["answer"] == stage.greedy(turns, 8)
    assert "read it" in first.printed and "found it" in second.printed


@check
def zo_training(stage: Stage) -> None:
    done = stage.run("zo-training", population=8, rounds=4, word="bread")
    assert done.result["after"] > done.result["before"] + 0.5
    assert len(done.result["history"]) == 5 == len(done.messages) + 1
