"""Prompts, the ways to generate, forks and what is shared, against transformers' own eager forward in float32."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from inferlet import Context, Event, ForwardPass, Model, Sampler, aio
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.inferlets.right.conftest import SPEAKERS, Connect, Speaker
from tests.inferlets.right.support import NEVER, Served, assert_greedy, greedy, holding, some_tokens

EagerOf = Callable[[str], Any]

TALK = [
    {"role": "system", "content": "You bake."},
    {"role": "user", "content": "What goes into rye bread?\n\n"},
    {"role": "assistant", "content": "Rye, water, salt. "},
    {"role": "user", "content": "Größe: 10 € \U0001f956"},
]


def talk(model: Model, turns: list[dict[str, str]] = TALK) -> Context:
    ctx = Context(model)
    for turn in turns:
        getattr(ctx, turn["role"])(turn["content"])
    return ctx


@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral"])
def test_prompts_are_the_chat_templates(family: str, connect: Connect, folder: Callable[[str], Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder(family))
    with connect(family):
        for length in range(1, len(TALK) + 1):
            ctx = talk(Model.load(family), TALK[:length])
            ctx.cue()
            theirs = tokenizer.apply_chat_template(
                TALK[:length], add_generation_prompt=True, tokenize=True, return_dict=False
            )
            assert list(ctx.buffered_tokens) == theirs
            ctx.release()


@pytest.mark.parametrize("family", sorted(SPEAKERS))
def test_first_prompts_are_each_familys(family: str, speaker: Speaker) -> None:
    with speaker(family) as (model, folder), Context(model) as ctx:
        assert model.family == family
        ctx.system(TALK[0]["content"])
        ctx.user(TALK[1]["content"])
        ctx.cue()
        theirs = PreTrainedTokenizerFast.from_pretrained(str(folder)).apply_chat_template(
            TALK[:2], add_generation_prompt=True, enable_thinking=True, tokenize=True, return_dict=False
        )
        assert ctx.buffered_tokens == theirs
        assert len(greedy(ctx, 3)) == 3


def by_hand(ctx: Context, count: int) -> list[int]:
    """Greedy decoding by single passes."""
    waiting, tokens = list(ctx.buffered_tokens), []
    while len(tokens) < count:
        step = ForwardPass(ctx.model)
        step.context(ctx)
        step.input_tokens(waiting)
        step.sampler([len(waiting) - 1], Sampler.greedy())
        waiting = list(step.execute().value)
        tokens += waiting
    return tokens


def test_every_way_to_generate_gives_the_same_tokens(model: Model, eager: EagerOf) -> None:
    prompt = talk(model)
    prompt.cue()
    ids = list(prompt.buffered_tokens)
    prompt.flush()
    tokens = greedy(prompt.fork(), 40)
    assert_greedy(eager("qwen3"), ids, tokens)
    assert by_hand(prompt.fork(), 40) == tokens
    text = model.tokenizer().decode(tokens)
    options: dict[str, Any] = {"max_tokens": 40, "auto_flush": False, "stop_tokens": NEVER}
    assert prompt.fork().generate_text(Sampler.greedy(), **options) == text
    events = list(prompt.fork().generate(Sampler.greedy(), decode=True, **options))
    assert "".join(event.text for event in events if isinstance(event, Event.Text)) == text
    assert events[-1] == Event.Done(text)
    pieces = list(prompt.fork().generate(Sampler.greedy(), **options))
    assert [token for piece in pieces for token in piece] == tokens
    one_by_one = prompt.fork()
    assert [greedy(one_by_one, 1)[0] for _ in range(40)] == tokens


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 40])
def test_forks_go_on_as_their_parent_would(model: Model, eager: EagerOf, length: int) -> None:
    """The parent, a child, a child's child, one of a half-filled buffer, and a context of the same tokens."""
    tokens = some_tokens(length, seed=length)
    parent = holding(model, tokens)
    child = parent.fork()
    wanted = greedy(child, 24)
    assert_greedy(eager("qwen3"), tokens, wanted)
    assert greedy(parent.fork().fork(), 24) == wanted
    assert greedy(holding(model, tokens, buffered=min(length, 5)).fork(), 24) == wanted
    later = child.fork()
    assert_greedy(eager("qwen3"), [*tokens, *wanted], greedy(later, 12))
    assert greedy(parent, 24) == wanted


def test_the_order_of_releases_does_not_matter(model: Model, served: Served, eager: EagerOf) -> None:
    dice = random.Random(3)
    pages = served["qwen3"].planner.pages
    for _ in range(6):
        tokens = some_tokens(dice.randint(17, 70), seed=dice.randint(1, 999))
        family = [holding(model, tokens)]
        for _ in range(5):
            family.append(dice.choice(family).fork())
        dice.shuffle(family)
        while len(family) > 1:
            family.pop().release()
            assert pages.held > 0
        assert_greedy(eager("qwen3"), tokens, greedy(family[0], 8))
        family[0].release()
        assert pages.held == 0


def test_a_released_context_is_an_error(model: Model) -> None:
    ctx = holding(model, some_tokens(9))
    child = ctx.fork()
    ctx.release()
    for use in (lambda: ctx.user("x"), ctx.fork, lambda: greedy(ctx, 1), lambda: ctx.buffered_tokens):
        with pytest.raises(LookupError):
            use()
    assert len(greedy(child, 3)) == 3


def test_equal_beginnings_are_run_once(model: Model, served: Served) -> None:
    """Forks, and contexts that know nothing of each other; with other tokens nothing is shared."""
    loop, pages = served["qwen3"].loop, served["qwen3"].planner.pages
    tokens = some_tokens(64, seed=77)

    def rows(make: Callable[[], Any]) -> tuple[int, int]:
        before, held = loop.stats()["plan_rows"], pages.held
        kept.append(make())
        return loop.stats()["plan_rows"] - before, pages.held - held

    kept: list[Context] = []
    first = rows(lambda: holding(model, [*tokens, 1]))
    again = rows(lambda: holding(model, [*tokens, 2]))
    other = rows(lambda: holding(model, [*some_tokens(64, seed=78), 2]))
    fork = rows(kept[0].fork)
    assert first == other == (64, 4)
    assert again[0] <= 1 and again[1] == 0
    assert fork == (0, 0)


def test_equal_beginnings_are_found_whoever_runs_them(connect: Connect, served: Served) -> None:
    loop, tokens, rows, found = served["qwen3"].loop, some_tokens(80, seed=79), [], []
    for owner in ("ada", "bob"):
        with connect("qwen3", owner=owner, id=f"of-{owner}"):
            before = loop.stats()["plan_rows"]
            with holding(Model.load("qwen3"), [*tokens, 5]) as ctx:
                rows.append(loop.stats()["plan_rows"] - before)
                found.append(greedy(ctx, 10))
    assert rows[0] == 80 and rows[1] <= 1
    assert found[0] == found[1]


KINDS = [
    Sampler.greedy(),
    Sampler.top_p(1.2, 0.8, seed=3),
    Sampler.top_k(1.2, 20, seed=4),
    Sampler.min_p(1.2, 0.05, seed=5),
    Sampler.multinomial(1.1, seed=6),
    Sampler.top_k_top_p(1.2, 30, 0.9, seed=7),
]


async def test_company_changes_nothing(connect: Connect) -> None:
    """Twelve programs' worth of generations of all kinds: alone, and all at once."""
    with connect("qwen3"):
        model = aio.Model.load("qwen3")
        dice = random.Random(1)
        prompts = [some_tokens(dice.randint(1, 60), seed=number) for number in range(12)]

        async def one(number: int) -> list[int]:
            with aio.Context(model) as ctx:
                ctx.fill_tokens(prompts[number])
                stream = ctx.generate(
                    KINDS[number % 6], max_tokens=8 + number, auto_flush=False, stop_tokens=NEVER, logprobs=number % 3
                )
                return await stream.tokens()

        alone = [await one(number) for number in range(12)]
        assert await asyncio.gather(*map(one, range(12))) == alone
