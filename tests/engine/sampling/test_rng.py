"""The generator against the known answers of Random123, and as the one source for numbers, arrays and tensors."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bakehouse.engine.adapters.philox import normals_at
from bakehouse.engine.sampling.rng import philox, randn, uniform

WORD = 0xFFFFFFFF
#: philox4x32-10 of Random123's `kat_vectors`: counter, key, answer.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((WORD,) * 4, (WORD,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
words = st.integers(0, WORD)


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_known_answers(counter, key, answer):
    assert philox(counter, key) == answer


@given(counter=st.tuples(words, words, words, words), key=st.tuples(words, words))
def test_numbers_arrays_and_tensors_agree(counter, key):
    expected = philox(counter, key)
    arrays = philox(*(tuple(np.array([word], np.uint64) for word in side) for side in (counter, key)))
    tensors = philox(*(tuple(torch.tensor([word]) for word in side) for side in (counter, key)))
    assert tuple(int(word[0]) for word in arrays) == expected
    assert tuple(int(word[0]) for word in tensors) == expected


@given(st.lists(st.tuples(st.integers(-(2**63), 2**64 - 1), st.integers(0, 2**64 - 1)), min_size=13, max_size=30))
def test_a_number_does_not_depend_on_its_neighbours(pairs):
    seeds, draws = zip(*pairs, strict=True)
    together = uniform(seeds, draws)
    assert ((together >= 0) & (together < 1)).all()
    assert together.tolist() == [float(uniform([seed], [draw])[0]) for seed, draw in pairs]


def test_uniforms_are_uniform_over_draws_and_over_seeds():
    for numbers in (uniform([7] * 40_000, range(40_000)), uniform(range(40_000), [3] * 40_000)):
        counts = np.bincount((numbers * 100).astype(int), minlength=100)
        chi_square = float(((counts - 400) ** 2 / 400).sum())
        assert chi_square < 160  # 99 degrees of freedom: above 160 once in 10,000
        assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.02


def test_normals_are_normal_and_named():
    numbers = randn(5, np.arange(40_000))
    assert numbers.dtype == np.float32
    assert abs(numbers.mean()) < 0.02
    assert abs(numbers.std() - 1) < 0.02
    assert abs((numbers**4).mean() - 3) < 0.15
    assert np.array_equal(randn(5, np.arange(100, 200)), numbers[100:200])
    assert not np.array_equal(randn(6, np.arange(100)), numbers[:100])


@pytest.mark.parametrize("seed", [0, 1, 77, WORD])
def test_normals_are_those_of_the_adapters(seed):
    """Two implementations, one for arrays and one for large tensors, of the same numbers."""
    found = randn(seed, np.arange(5000))
    assert np.allclose(found, normals_at(seed, torch.arange(5000)).numpy(), rtol=1e-5, atol=1e-5)
