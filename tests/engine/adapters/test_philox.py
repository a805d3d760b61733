"""The noise is that of the reference generator, by counter."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bakehouse.engine.adapters import philox
from bakehouse.engine.sampling import rng


@settings(max_examples=50, deadline=None)
@given(key=st.integers(-(2**63), 2**63 - 1), counters=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=20))
def test_words_are_those_of_the_reference(key: int, counters: list[int]) -> None:
    first, second = philox.words(key, torch.tensor(counters, dtype=torch.int64))
    expected = [rng.philox((counter, 0, 0, 0), (key & 0xFFFFFFFF, 0))[:2] for counter in counters]
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == expected


@settings(max_examples=20, deadline=None)
@given(key=st.integers(-(2**63), 2**63 - 1))
def test_normals_are_those_of_the_reference_by_counter(key: int) -> None:
    rows, columns = 5, 7
    expected = rng.randn(key & 0xFFFFFFFF, np.arange(rows * columns).reshape(rows, columns))
    np.testing.assert_allclose(philox.normals(key, rows, columns).numpy(), expected, rtol=1e-4, atol=2e-6)


def test_pieces_join_without_a_seam() -> None:
    rows, columns = 600, 70  # more than one piece
    whole = philox.normals(11, rows, columns).flatten()
    some = torch.tensor([0, 2**15 - 1, 2**15, 2**15 + 1, rows * columns - 1])
    torch.testing.assert_close(whole[some], philox.normals_at(11, some))


def test_they_are_standard_normal() -> None:
    values = philox.normals(3, 400, 500).double()
    assert abs(values.mean().item()) < 0.01
    assert abs(values.std().item() - 1) < 0.01
    assert abs((values.abs() < 1).double().mean().item() - 0.6827) < 0.005
