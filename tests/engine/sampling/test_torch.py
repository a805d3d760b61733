"""The torch sampler against the reference: any mixture of readouts, any batch shape."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bakehouse.engine import brle
from bakehouse.engine.errors import BadRequest, StepFailed
from bakehouse.engine.params import GREEDY, Distribution, Embedding, Penalties, Sampler
from bakehouse.engine.plan.step import Readout
from bakehouse.engine.sampling.reference import ReferenceSampler, draw, kept_weights, processed
from bakehouse.engine.sampling.rng import uniform
from bakehouse.engine.sampling.torch import TorchSampler

REFERENCE = ReferenceSampler()
#: How far the numbers of float32 may move an edge.
TOLERANCE = 2e-5
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here"))]
on_each_device = pytest.mark.parametrize("device", DEVICES)


def logits_of(rows: int, size: int, seed: int, *, scale: float = 3.0, decimals: int | None = None) -> np.ndarray:
    values = np.random.default_rng(seed).normal(0, scale, (rows, size))
    return (values if decimals is None else values.round(decimals)).astype(np.float32)


def both(logits, readouts, hidden=None, device="cpu"):
    tensors = [None if values is None else torch.from_numpy(values).to(device) for values in (logits, hidden)]
    return REFERENCE.sample(logits, hidden, readouts), TorchSampler().sample(*tensors, readouts)


samplers = st.one_of(
    st.just(GREEDY),
    st.builds(
        Sampler,
        temperature=st.sampled_from([0.0, 0.3, 0.6, 1.0, 1.7, 5.0]),
        top_k=st.sampled_from([0, 0, 1, 5, 50, 1023, 1025, 10**6]),
        top_p=st.sampled_from([1.0, 1.0, 0.0, 0.05, 0.5, 0.95, 0.9999]),
        min_p=st.sampled_from([0.0, 0.0, 0.01, 0.3, 1.0]),
    ),
    st.builds(
        Sampler,
        kind=st.just("dist"),
        temperature=st.sampled_from([0.0, 0.5, 1.0]),
        entries=st.sampled_from([0, 1, 7, 10**5]),
    ),
)
history = st.lists(st.integers(0, 60), max_size=30)
penalties = st.builds(
    Penalties,
    repetition=st.sampled_from([1.0, 1.0, 1.3, 0.8]),
    frequency=st.sampled_from([0.0, 0.7, -0.4]),
    presence=st.sampled_from([0.0, 0.5]),
    bias=st.lists(st.tuples(st.integers(0, 49), st.sampled_from([-100.0, 0.3, 5.0])), max_size=4).map(tuple),
)


@st.composite
def batches(draw):
    size = draw(st.sampled_from([50, 64, 265, 2049, 5003]))
    readouts = []
    for row in range(draw(st.integers(1, 7))):
        mask = draw(st.one_of(st.none(), st.none(), st.lists(st.integers(1, size), min_size=1, max_size=5)))
        readouts.append(
            Readout(
                row=row,
                sampler=draw(samplers),
                seed=draw(st.integers(-(2**63), 2**64 - 1)),
                draw=draw(st.integers(0, 1000)),
                mask=None if mask is None else brle.to_bits(mask, size),
                penalties=draw(penalties),
                prompt=tuple(draw(history)),
                generated=draw(history),
                logprobs=draw(st.sampled_from([0, 0, 3, 20])),
                want_logprob=draw(st.booleans()),
            )
        )
    decimals = draw(st.sampled_from([None, 0, 1]))
    return logits_of(len(readouts), size, draw(st.integers(0, 2**32)), decimals=decimals), readouts


def near(row: np.ndarray, readout: Readout) -> set[int]:
    """The tokens that the reference draws when the number and the filters' edges move a little."""
    row, found = processed(row, readout), set()
    number = float(uniform([readout.seed], [readout.draw])[0])
    sampler = readout.sampler
    for edge in (-TOLERANCE, 0, TOLERANCE):
        top_p = sampler.top_p if sampler.top_p == 1 else min(max(sampler.top_p + edge, 0), 1 - 1e-12)
        moved = replace(sampler, top_p=top_p, min_p=min(max(sampler.min_p * (1 + edge), 0), 1))
        weights = kept_weights(row, replace(readout, sampler=moved))
        found |= {draw(weights, min(max(number + step, 0), 1 - 1e-12)) for step in (-TOLERANCE, 0, TOLERANCE)}
    return found


def same(row, readout, expected, found):
    assert (expected.error is None) == (found.error is None)
    if expected.error is not None:
        assert (type(expected.error), str(expected.error)) == (type(found.error), str(found.error))
    elif isinstance(expected.value, Distribution):
        assert len(expected.value.ids) == len(found.value.ids)
        assert list(expected.value.ids) == list(found.value.ids)
        assert np.allclose(expected.value.probs, found.value.probs, rtol=1e-4, atol=1e-7)
    elif readout.sampler.greedy:
        assert expected.value == found.value
    elif expected.value != found.value:
        assert found.value in near(row, readout)
    if expected.logprobs is None or expected.value != found.value:
        assert (expected.logprobs is None) == (found.logprobs is None)
    else:
        assert found.logprobs.token == expected.logprobs.token
        assert found.logprobs.logprob == pytest.approx(expected.logprobs.logprob, rel=1e-5, abs=1e-5)
        assert [token for token, _ in found.logprobs.top] == [token for token, _ in expected.logprobs.top]
        assert np.allclose([v for _, v in found.logprobs.top], [v for _, v in expected.logprobs.top], atol=1e-5)


@on_each_device
@settings(max_examples=100, deadline=None)
@given(batch=batches())
def test_agrees_with_the_reference(batch, device):
    logits, readouts = batch
    for row, readout, expected, found in zip(logits, readouts, *both(logits, readouts, device=device), strict=True):
        same(row, readout, expected, found)


@settings(max_examples=30, deadline=None)
@given(batch=batches())
def test_sampling_changes_nothing_and_may_be_repeated(batch):
    logits, readouts = batch
    tensor, sampler = torch.from_numpy(logits.copy()), TorchSampler()
    small_parts = TorchSampler(most=2 * logits.shape[1])
    answers = [
        [(r.value, r.logprobs) for r in each.sample(tensor, None, readouts)] for each in (sampler, sampler, small_parts)
    ]
    assert answers[0] == answers[1] == answers[2]
    assert np.array_equal(tensor.numpy(), logits)


@settings(max_examples=30, deadline=None)
@given(batches(), st.randoms(use_true_random=False))
def test_a_row_does_not_depend_on_its_batch(batch, random):
    logits, readouts = batch
    sampler = TorchSampler()
    together = sampler.sample(torch.from_numpy(logits), None, readouts)
    order = list(range(len(readouts)))
    random.shuffle(order)
    shuffled = sampler.sample(torch.from_numpy(logits[order]), None, [readouts[row] for row in order])
    alone = [sampler.sample(torch.from_numpy(logits[[row]]), None, [readouts[row]])[0] for row in order]
    for row, other, single in zip(order, shuffled, alone, strict=True):
        if together[row].error is None:
            assert together[row] == other == single
        else:
            assert str(together[row].error) == str(other.error) == str(single.error)


@on_each_device
@pytest.mark.parametrize("sampler", [Sampler(), Sampler(top_k=40), Sampler(top_p=0.9), Sampler(min_p=0.05)])
def test_a_large_vocabulary_agrees(sampler, device):
    logits = logits_of(3, 151_936, 1)
    readouts = [Readout(row, sampler, seed=row, draw=4, logprobs=5) for row in range(3)]
    for row, readout, expected, found in zip(logits, readouts, *both(logits, readouts, device=device), strict=True):
        same(row, readout, expected, found)


def test_a_flat_row_is_sorted_whole_for_top_p():
    """Its nucleus is far larger than what is looked at first."""
    logits = logits_of(2, 20_000, 3, scale=0.01)
    logits[1] *= 800
    readouts = [Readout(row, Sampler(top_p=0.9), seed=5, draw=row) for row in range(2)]
    for row, readout, expected, found in zip(logits, readouts, *both(logits, readouts), strict=True):
        same(row, readout, expected, found)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_read_as_its_float32(dtype):
    logits = torch.from_numpy(logits_of(4, 3000, 8)).to(dtype)
    kinds = [GREEDY, Sampler(), Sampler(top_k=9), Sampler(kind="dist", entries=4)]
    readouts = [Readout(row, sampler, seed=2, draw=3) for row, sampler in enumerate(kinds)]
    assert TorchSampler().sample(logits, None, readouts) == TorchSampler().sample(logits.float(), None, readouts)
    greedy = [Readout(row, GREEDY) for row in range(4)]
    assert TorchSampler().sample(logits, None, greedy) == TorchSampler().sample(logits.float(), None, greedy)


def test_embeddings_take_hidden_rows_and_no_logits():
    hidden, logits = logits_of(3, 8, 5), logits_of(1, 50, 6)
    embedding = Sampler(kind="embedding")
    readouts = [Readout(0, embedding), Readout(0, GREEDY), Readout(2, embedding)]
    expected, found = both(logits, readouts, hidden)
    assert expected == found
    assert found[2].value == Embedding(hidden[2].astype("<f4").tobytes())
    only = [Readout(0, embedding)]
    assert TorchSampler().sample(torch.zeros(0, 50), torch.from_numpy(hidden[:1]), only)[0] == found[0]


def test_groups_follow_the_samplers():
    """The groups of one step are used again only by a step that asks for the same."""
    sampler, logits = TorchSampler(), torch.from_numpy(logits_of(3, 265, 9))
    steps = [[GREEDY] * 3, [Sampler(top_k=4)] * 3, [GREEDY, Sampler(top_p=0.5), Sampler()], [Sampler(min_p=0.5)] * 2]
    for step in [*steps, *steps[::-1]]:
        readouts = [Readout(row, each, seed=7, draw=1) for row, each in enumerate(step)]
        rows = logits[: len(step)]
        assert sampler.sample(rows, None, readouts) == REFERENCE.sample(rows.numpy(), None, readouts)
    assert sampler.sample(logits, None, []) == []


@on_each_device
def test_a_row_that_cannot_be_sampled_fails_alone(device):
    logits = logits_of(6, 300, 10)
    logits[1, 7] = np.nan
    logits[2, 7] = np.inf
    logits[3] = -np.inf
    nothing = brle.to_bits((300,), 300)
    readouts = [Readout(row, Sampler(top_k=row % 3), seed=1, draw=row) for row in range(6)]
    readouts[4].mask = nothing
    readouts[5].penalties = Penalties(bias=((300, 1.0),))
    expected, found = both(logits, readouts, device=device)
    clean, _ = both(logits[:1], readouts[:1])
    assert found[0] == expected[0] == clean[0]
    kinds = [StepFailed, StepFailed, StepFailed, BadRequest, BadRequest]
    for one, other, kind in zip(expected[1:], found[1:], kinds, strict=True):
        assert type(one.error) is type(other.error) is kind
        assert str(one.error) == str(other.error)
        assert one.value == other.value == -1
    assert [found[4].error.field, found[5].error.field] == ["logit_mask", "bias"]


def test_the_prompt_is_remembered_by_identity_only():
    """A prompt that grows in place, and another one that takes its place in memory, are both seen as they are."""
    sampler, logits = TorchSampler(), torch.from_numpy(logits_of(1, 50, 11))
    strong = Penalties(repetition=1000.0)
    prompt = [int(logits.argmax())]
    for _ in range(5):
        readouts = [Readout(0, GREEDY, penalties=strong, prompt=prompt)]
        found = sampler.sample(logits, None, readouts)
        assert found == REFERENCE.sample(logits.numpy(), None, readouts)
        assert found[0].value not in prompt
        prompt.append(found[0].value)
