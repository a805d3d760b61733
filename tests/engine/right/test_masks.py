"""Attention masks by token through sessions, against transformers' eager attention with the same mask as a matrix."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from bakehouse.engine import brle
from bakehouse.engine.model import ServedModel
from bakehouse.engine.params import SampleAt
from tests.engine.right.support import DIST, TOLERANCE, Open, dense, distributions, forward, logs, some_tokens

EagerOf = Callable[[str], Any]
WINDOW = 24


def matrix(masks: Sequence[brle.Brle], positions: Sequence[int], window: int | None = None) -> Tensor:
    """``[1, 1, rows, keys]``, 0 where a row sees a key and the least number where not."""
    sees = torch.tensor(
        [
            [brle.allows(mask, key) and (window is None or position - key < window) for key in positions]
            for mask, position in zip(masks, positions, strict=True)
        ]
    )
    return torch.zeros(sees.shape).masked_fill(~sees, torch.finfo(torch.float32).min)[None, None]


def reference(
    model: Any, tokens: Sequence[int], masks: Sequence[brle.Brle], positions: Sequence[int] | None = None
) -> Tensor:
    at = list(range(len(tokens))) if positions is None else list(positions)
    given: Any = matrix(masks, at)
    if model.config.model_type in ("gemma2", "gemma3_text", "gpt_oss"):
        given = {"full_attention": given, "sliding_attention": matrix(masks, at, WINDOW)}
    elif model.config.model_type == "mistral":
        given = matrix(masks, at, WINDOW)
    with torch.inference_mode():
        return logs(model(torch.tensor([tokens]), attention_mask=given, position_ids=torch.tensor([at])).logits[0])


def close(ours: Tensor, theirs: Tensor) -> None:
    assert (ours - theirs).abs().max() < TOLERANCE


def in_pieces(session: Any, tokens: Sequence[int], masks: Sequence[brle.Brle], cuts: Sequence[int]) -> Tensor:
    context = session.create_context()
    parts = []
    for start, stop in zip([0, *cuts], [*cuts, len(tokens)], strict=True):
        piece = distributions(session, tokens[start:stop], context=context, masks=tuple(masks[start:stop]))
        parts.append(piece)
    return torch.cat(parts)


WINDOWS = [(1, 0), (5, 0), (16, 0), (12, 3), (17, 16), (40, 2)]


@pytest.mark.parametrize(
    ("family", "window", "sinks"),
    [(family, *kind) for family in ("llama", "gemma2", "mistral") for kind in WINDOWS] + [("gpt_oss", 12, 3)],
)
def test_windows_and_sinks(family: str, window: int, sinks: int, open_: Open, eager: EagerOf) -> None:
    """Also in models that have windows of their own, and sinks of another kind."""
    session, tokens = open_(family), some_tokens(80, seed=window)
    masks = [brle.sliding(position, window, sinks) for position in range(len(tokens))]
    close(in_pieces(session, tokens, masks, [1, 16, 17, 50, 51]), reference(eager(family), tokens, masks))


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3"])
@pytest.mark.parametrize("seed", range(6))
def test_arbitrary_masks(family: str, seed: int, open_: Open, eager: EagerOf) -> None:
    """Each token sees itself and any of those before it; each run of passes is cut elsewhere."""
    dice = random.Random(seed)
    session, tokens = open_(family), some_tokens(70, seed=seed)
    masks = [
        brle.from_bools([dice.random() < 0.6 or key == row for key in range(row + 1)]) for row in range(len(tokens))
    ]
    cuts = sorted(dice.sample(range(1, len(tokens)), 5))
    close(in_pieces(session, tokens, masks, cuts), reference(eager(family), tokens, masks))


@pytest.mark.parametrize("seed", range(4))
def test_masks_that_look_forward(seed: int, open_: Open, eager: EagerOf) -> None:
    """A prefix that sees itself both ways (prefix-LM), longer than a chunk, and then causal tokens."""
    dice = random.Random(seed)
    session, tokens = open_("llama"), some_tokens(60, seed=seed)
    both = dice.choice([7, 16, 33, 45])
    masks = [(0, both)] * both + [brle.causal(row) for row in range(both, len(tokens))]
    wanted = reference(eager("llama"), tokens, masks)
    context = session.create_context()
    first = distributions(session, tokens[:both], context=context, masks=tuple(masks[:both]))
    child = session.fork_context(context)
    close(torch.cat([first, distributions(session, tokens[both:], context=context)]), wanted)
    close(distributions(session, tokens[both:], context=child), wanted[both:])
    close(distributions(session, tokens, masks=tuple(masks)), wanted)


@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_positions_with_gaps(family: str, open_: Open, eager: EagerOf) -> None:
    """Positions are what rotary embeddings, masks and the model's own windows see."""
    session, tokens = open_(family), some_tokens(40, seed=3)
    positions = [row + 7 * (row // 9) for row in range(len(tokens))]
    masks = [brle.causal(position) for position in positions]
    wanted = reference(eager(family), tokens, masks, positions)
    context = session.create_context()
    parts = []
    for start, stop in ((0, 10), (10, 11), (11, 40)):
        parts.append(
            distributions(session, tokens[start:stop], context=context, positions=tuple(positions[start:stop]))
        )
    close(torch.cat(parts), wanted)
    assert session.context_state(context).last_position == positions[-1]
    following = distributions(session, [9], context=context)
    close(
        following,
        reference(eager(family), [*tokens, 9], [*masks, (0, positions[-1] + 2)], [*positions, positions[-1] + 1])[-1:],
    )


def test_positions_that_fall_and_repeat(open_: Open, eager: EagerOf) -> None:
    """Two answers of a tree at the same positions, told apart by masks: rows see by position, and what is there."""
    session, trunk = open_("llama"), some_tokens(20, seed=21)
    context = session.create_context()
    distributions(session, trunk, context=context)
    # a second sequence of positions below the last one: by default it sees all that is not above its own
    positions = (5, 6, 30)
    ours = distributions(session, [1, 2, 3], context=context, positions=positions)
    order = [*range(20), *positions]
    sees = torch.tensor([[order[key] <= order[row] and key <= row for key in range(23)] for row in range(23)])
    # rows of one pass see each other where their positions allow it, also ahead of their slots
    for row in range(20, 23):
        for key in range(20, 23):
            sees[row, key] = order[key] <= order[row]
    given = torch.zeros(sees.shape).masked_fill(~sees, torch.finfo(torch.float32).min)[None, None]
    with torch.inference_mode():
        wanted = logs(
            eager("llama")(
                torch.tensor([[*trunk, 1, 2, 3]]), attention_mask=given, position_ids=torch.tensor([order])
            ).logits[0]
        )
    close(ours, wanted[20:])


def test_equal_tokens_with_other_masks_share_no_page(
    serve: Callable[..., ServedModel], open_: Open, eager: EagerOf
) -> None:
    """Explicit causal masks are the default, and share; a window is not, and does not."""
    session, tokens = open_("llama"), some_tokens(64, seed=31)
    causal = tuple(brle.causal(row) for row in range(64))
    narrow = tuple(brle.sliding(row, 9) for row in range(64))
    loop = serve("llama").loop
    for masks, runs in ((None, 64), (causal, 1), (narrow, 64), (narrow, 1), (None, 1)):
        before = loop.stats()["plan_rows"]
        context = session.create_context()
        ours = one_row(session, context, tokens, masks)
        assert loop.stats()["plan_rows"] - before == runs
        wanted = reference(eager("llama"), tokens, masks or causal)[-1]
        close(ours, wanted)


def one_row(session: Any, context: int, tokens: Sequence[int], masks: tuple[brle.Brle, ...] | None) -> Tensor:
    samplers = (SampleAt((len(tokens) - 1,), DIST),)
    (result,) = forward(session, context=context, tokens=tuple(tokens), masks=masks, samplers=samplers).results
    return dense(result).log()
