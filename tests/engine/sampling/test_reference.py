"""The reference against transformers, the OpenAI API's formula and statistics. Whatever it is right about, the torch
sampler is right about, too: `test_torch` holds the two together."""

import numpy as np
import pytest
import torch
from transformers.generation import logits_process as hf

from bakehouse.engine import brle
from bakehouse.engine.errors import BadRequest
from bakehouse.engine.params import GREEDY, Penalties, Sampler, SamplerKind
from bakehouse.engine.plan.step import Readout
from bakehouse.engine.sampling.reference import ReferenceSampler, kept_weights, processed
from bakehouse.engine.sampling.torch import TorchSampler

SIZE = 300


def row_of(seed: int = 0, size: int = SIZE, scale: float = 2.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, scale, size).astype(np.float32)


def sample(row, readouts):
    return ReferenceSampler().sample(np.tile(row, (len(readouts), 1)), None, readouts)


def softmax(row):
    return torch.from_numpy(row.astype(np.float64)).softmax(0).numpy()


def warped(row, warpers):
    scores = torch.from_numpy(row.astype(np.float64))[None]
    for warper in warpers:
        scores = warper(torch.zeros(1, 1, dtype=torch.long), scores)
    return scores[0].softmax(0).numpy()


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.8])
@pytest.mark.parametrize(
    ("filters", "warpers"),
    [
        ({}, []),
        ({"top_k": 1}, [hf.TopKLogitsWarper(1)]),
        ({"top_k": 20}, [hf.TopKLogitsWarper(20)]),
        ({"top_k": SIZE + 5}, []),
        ({"top_p": 0.1}, [hf.TopPLogitsWarper(0.1)]),
        ({"top_p": 0.9}, [hf.TopPLogitsWarper(0.9)]),
        ({"min_p": 0.05}, [hf.MinPLogitsWarper(0.05)]),
        ({"top_k": 20, "top_p": 0.7}, [hf.TopKLogitsWarper(20), hf.TopPLogitsWarper(0.7)]),
        (
            {"top_k": 50, "top_p": 0.9, "min_p": 0.1},
            [hf.TopKLogitsWarper(50), hf.TopPLogitsWarper(0.9), hf.MinPLogitsWarper(0.1)],
        ),
    ],
)
def test_filters_are_those_of_transformers(temperature, filters, warpers):
    for seed in range(5):
        row = row_of(seed)
        weights = kept_weights(row, Readout(0, Sampler(temperature=temperature, **filters)))
        expected = warped(row, [hf.TemperatureLogitsWarper(temperature), *warpers])
        assert np.allclose(weights / weights.sum(), expected, atol=1e-12)


@pytest.mark.parametrize("factor", [1.3, 0.7])
def test_repetition_is_that_of_transformers(factor):
    row, prompt, generated = row_of(1), (3, 3, 17, 40), [41, 17, 299]
    ids = torch.tensor([[*prompt, *generated]])
    expected = hf.RepetitionPenaltyLogitsProcessor(factor)(ids, torch.from_numpy(row)[None])[0].numpy()
    readout = Readout(0, GREEDY, penalties=Penalties(repetition=factor), prompt=prompt, generated=generated)
    assert np.array_equal(processed(row, readout), expected)


def test_bias_is_that_of_transformers():
    row, bias = row_of(2), ((5, 4.0), (17, -100.0))
    processor = hf.SequenceBiasLogitsProcessor([[[token], value] for token, value in bias])
    expected = processor(torch.tensor([[1]]), torch.from_numpy(row)[None])[0].numpy()
    assert np.array_equal(processed(row, Readout(0, GREEDY, penalties=Penalties(bias=bias))), expected)


def test_frequency_and_presence_are_those_of_openai():
    """mu[j] -> mu[j] - c[j] * frequency - (c[j] > 0) * presence, c counting what was generated, not the prompt."""
    row, generated = row_of(3), [4, 9, 4, 4, 120]
    readout = Readout(
        0, GREEDY, penalties=Penalties(frequency=0.5, presence=1.25), prompt=(9, 200), generated=generated
    )
    expected = row.astype(np.float64)
    for token in range(SIZE):
        count = generated.count(token)
        expected[token] -= count * 0.5 + (1.25 if count else 0)
    assert np.allclose(processed(row, readout), expected, atol=1e-6)


def test_penalties_act_in_order_before_the_mask():
    row = np.zeros(40, np.float32)
    row[7] = 8.0
    penalties = Penalties(repetition=2.0, frequency=1.0, presence=0.5, bias=((7, 10.0), (7, 1.0), (8, 3.0)))
    readout = Readout(0, GREEDY, penalties=penalties, generated=(7, 7), mask=brle.to_bits((7, 1), 40))
    found = processed(row, readout)
    assert found[7] == 8.0 / 2 - 2 * 1.0 - 0.5 + 11.0
    assert np.isneginf(np.delete(found, 7)).all()


def test_equal_logits_are_ordered_by_id():
    row = np.zeros(SIZE, np.float32)
    row[[9, 33, 200]] = 1.0
    readouts = [Readout(0, GREEDY), Readout(0, Sampler(top_k=1), seed=8), Readout(0, Sampler(top_p=0.0), seed=9)]
    assert [result.value for result in sample(row, readouts)] == [9, 9, 9]
    weights = kept_weights(row, Readout(0, Sampler(top_k=2)))
    assert np.flatnonzero(weights).tolist() == [9, 33]


@pytest.mark.parametrize("kind", [kind for kind in SamplerKind if Sampler(kind=kind).yields_token])
def test_every_kind_is_greedy_when_cold(kind):
    row = row_of(4)
    readouts = [Readout(0, Sampler(kind=kind, temperature=t, top_k=9, top_p=0.9), seed=3) for t in (0.0, 9e-6)]
    assert [result.value for result in sample(row, readouts)] == [int(row.argmax())] * 2


@pytest.mark.parametrize(
    "sampler", [Sampler(), Sampler(temperature=0.5), Sampler(top_k=6), Sampler(top_p=0.8), Sampler(min_p=0.2)]
)
@pytest.mark.parametrize("make", [ReferenceSampler, TorchSampler])
def test_tokens_come_as_often_as_their_probability_says(sampler, make):
    """Chi-square with 10,000 draws of one stream; a chance of about 1 in 10,000 to fail, decided by the fixed seed."""
    row, draws = row_of(5, size=24, scale=1.0), 10_000
    weights = kept_weights(row, Readout(0, sampler))
    probs = weights / weights.sum()
    readouts = [Readout(0, sampler, seed=1234, draw=draw) for draw in range(draws)]
    logits = np.tile(row, (draws, 1))
    results = make().sample(torch.from_numpy(logits) if make is TorchSampler else logits, None, readouts)
    counts = np.bincount([result.value for result in results], minlength=24)
    assert (counts[probs == 0] == 0).all()
    kept = probs > 0
    chi_square = float(((counts[kept] - draws * probs[kept]) ** 2 / (draws * probs[kept])).sum())
    degrees = kept.sum() - 1
    assert chi_square < degrees + 4 * np.sqrt(2 * degrees) + 6


def test_a_stream_is_its_seed():
    row = row_of(6)

    def stream(seed):
        return [result.value for result in sample(row, [Readout(0, Sampler(), seed, draw) for draw in range(50)])]

    assert stream(1) == stream(1)
    assert stream(1) != stream(2)


@pytest.mark.parametrize(("temperature", "scale"), [(1.0, 1.0), (0.5, 0.5), (0.0, 1.0)])
def test_distribution(temperature, scale):
    row = row_of(7)
    readouts = [Readout(0, Sampler(kind="dist", temperature=temperature, entries=entries)) for entries in (0, 10)]
    full, short = (result.value for result in sample(row, readouts))
    expected = softmax(row / scale)
    assert sorted(full.ids) == list(range(SIZE))
    assert np.allclose(full.probs, expected[np.array(full.ids)], rtol=1e-5)
    assert list(full.probs) == sorted(full.probs, reverse=True)
    assert (list(short.ids), list(short.probs)) == (list(full.ids)[:10], list(full.probs)[:10])


def test_distribution_is_taken_after_the_mask():
    row = row_of(8)
    mask = brle.to_bits((10, 5), SIZE)
    value = sample(row, [Readout(0, Sampler(kind="dist"), mask=mask)])[0].value
    assert sorted(value.ids) == [10, 11, 12, 13, 14]
    assert np.allclose(np.array(value.probs), softmax(row[10:15])[np.array(value.ids) - 10], rtol=1e-5)


def test_logprobs_are_of_temperature_one_after_the_mask():
    row = row_of(9)
    sampler = Sampler(temperature=0.3, top_k=2)
    mask = brle.to_bits((0, 4), SIZE)
    free, masked = sample(
        row, [Readout(0, sampler, logprobs=5), Readout(0, sampler, mask=mask, logprobs=6, want_logprob=True)]
    )
    expected = torch.from_numpy(row.astype(np.float64)).log_softmax(0)
    assert free.logprobs.token == free.value
    assert free.logprobs.logprob == pytest.approx(float(expected[free.value]))
    top = expected.topk(5)
    assert [token for token, _ in free.logprobs.top] == top.indices.tolist()
    assert [value for _, value in free.logprobs.top] == pytest.approx(top.values.tolist())
    assert sorted(token for token, _ in masked.logprobs.top) == [0, 1, 2, 3]
    assert sum(np.exp(value) for _, value in masked.logprobs.top) == pytest.approx(1)


def test_what_a_sampler_does_not_do_is_refused():
    for wrong in ({"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.1}):
        with pytest.raises(BadRequest, match="takes no top_k"):
            Sampler(kind="dist", **wrong)
    with pytest.raises(BadRequest, match="entries"):
        Sampler(kind="top_p", entries=3)
