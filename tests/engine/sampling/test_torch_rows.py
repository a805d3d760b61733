"""Ranks and draws by blocks, at the borders of blocks: against numpy, for every place that something can be."""

import numpy as np
import pytest
import torch

from bakehouse.engine.sampling import torch_rows as on_rows
from bakehouse.engine.sampling.reference import draw, ranked

SIZES = [1, 7, 64, 65, 511, 512, 513, 1023, 1024, 1025, 1536, 1537, 5003]


def rows_of(size: int) -> np.ndarray:
    """Noise, ties, zeros of both signs, infinities, and the best at the first, the last and a middle place."""
    random = np.random.default_rng(size)
    noise = random.normal(0, 3, (8, size)).astype(np.float32)
    noise[1] = noise[1].round()
    noise[2] = np.where(random.random(size) < 0.5, 0.0, -0.0)
    noise[3, random.random(size) < 0.9] = -np.inf
    noise[4, 0] = noise[5, -1] = noise[6, size // 2] = 99.0
    noise[7] = -5.0
    return noise


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_best_id_is_the_first_of_the_largest(size, dtype):
    logits = torch.from_numpy(rows_of(size)).to(dtype)
    values, ids = on_rows.best(logits)
    expected = logits.float().numpy()
    assert ids.tolist() == expected.argmax(1).tolist()
    assert values.tolist() == expected.max(1).tolist()


def test_a_nan_is_the_best_wherever_it_is():
    logits = torch.zeros(3, 5003)
    logits[0, 0] = logits[1, 5002] = logits[2, 2600] = torch.nan
    assert on_rows.best(logits)[0].isnan().all()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [1, 2, 20, 64, 1024])
def test_the_best_ids_are_in_order(size, count):
    logits = rows_of(size)
    expected = [ranked(row)[:count].tolist() for row in logits]
    assert on_rows.best_ids(torch.from_numpy(logits), count).tolist() == expected


@pytest.mark.parametrize("size", SIZES)
def test_all_ids_are_in_order(size):
    logits = rows_of(size)
    assert on_rows.all_ids(torch.from_numpy(logits)).tolist() == [ranked(row).tolist() for row in logits]


@pytest.mark.parametrize("size", SIZES)
def test_draws_invert_the_summed_weights(size):
    """Whole weights, so that sums are exact, half of them zero; numbers just below, at and above sums."""
    weights = np.random.default_rng(size).integers(0, 3, size).astype(np.float32)
    weights[-1] = 1
    edges = np.cumsum(weights.astype(np.float64)) / weights.sum()
    edges = edges[np.linspace(0, size - 1, min(size, 150)).astype(int)]
    numbers = np.unique(np.concatenate(([0.0, 1 - 2**-53], edges, edges - 2e-16, edges + 1e-9)))
    numbers = numbers[(numbers >= 0) & (numbers < 1)]
    expected = [draw(weights.astype(np.float64), float(number)) for number in numbers]
    rows = torch.from_numpy(weights).expand(len(numbers), -1).contiguous()
    found = on_rows.draw(rows, torch.from_numpy(numbers))
    assert found.tolist() == expected
    assert (weights[expected] > 0).all()
    shuffled = torch.randperm(size, generator=torch.Generator().manual_seed(1)).expand(len(numbers), -1)
    assert (
        on_rows.draw_among(shuffled, rows.gather(1, shuffled).double(), torch.from_numpy(numbers)).tolist() == expected
    )
