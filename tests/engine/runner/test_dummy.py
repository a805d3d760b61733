"""The dummy model behaves as a model: what a row says follows from what it sees, wherever that lies in the pool."""

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bakehouse.engine import brle
from bakehouse.engine.errors import NotFound, StepFailed
from bakehouse.engine.params import GREEDY, Embedding, Sampler
from bakehouse.engine.plan.step import Copy, Readout, Segment, StepPlan
from bakehouse.engine.runner.create import create_runner
from bakehouse.engine.spec import ModelSpec
from bakehouse.engine.tokenizer.bytes import IM_END, ByteTokenizer

TOKENIZER = ByteTokenizer()
CUE = TOKENIZER.encode("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")
EVERYTHING = Sampler(kind="dist")


def runner(seed=0, page_size=16, pages=64):
    made = create_runner(ModelSpec(name="dummy", source="dummy", seed=seed, page_size=page_size))
    made.allocate(pages)
    return made


def segment(tokens, pages, history=0, start=0, **more):
    return Segment(start, len(tokens), history, pages, **more)


def run(made, tokens, pages, history=0, positions=None, copies=(), **more):
    """One segment; the distribution after each of its rows."""
    positions = list(range(history, history + len(tokens))) if positions is None else positions
    plan = StepPlan(list(tokens), positions, [segment(tokens, pages, history, **more)], copies=list(copies))
    plan.readouts = [Readout(row, EVERYTHING) for row in range(len(tokens))]
    return [result.value for result in made.sample(made.forward(plan), plan.readouts)]


tokens = st.lists(st.integers(0, 264), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(tokens=tokens, cuts=st.lists(st.integers(0, 60)), seed=st.integers(0, 99))
def test_chunks_pages_and_neighbours_change_nothing(tokens, cuts, seed):
    whole = run(runner(page_size=4), tokens, range(16))
    made, pages = runner(page_size=4), np.random.default_rng(seed).permutation(64).tolist()
    bounds = sorted({0, len(tokens), *(min(cut, len(tokens)) for cut in cuts)})
    parts = []
    for start, stop in pairwise(bounds):
        chunk, other = tokens[start:stop], [1, 2, 3]
        plan = StepPlan(other + chunk, [0, 1, 2, *range(start, stop)])
        plan.segments = [segment(other, pages[20:21]), segment(chunk, pages[:16], start, start=3)]
        plan.readouts = [Readout(3 + row, EVERYTHING) for row in range(len(chunk))]
        parts += [result.value for result in made.sample(made.forward(plan), plan.readouts)]
    assert parts == whole


@settings(max_examples=60, deadline=None)
@given(tokens=tokens, at=st.integers(0, 59), seed=st.integers(1, 264))
def test_every_token_before_matters_and_none_after(tokens, at, seed):
    at %= len(tokens)
    changed = [*tokens[:at], (tokens[at] + seed) % 265, *tokens[at + 1 :]]
    one, other = (run(runner(), each, range(4)) for each in (tokens, changed))
    assert one[:at] == other[:at]
    if changed != tokens:
        assert all(a != b for a, b in zip(one[at:], other[at:], strict=True))


def test_order_position_and_seed_matter():
    base = run(runner(), CUE, range(4))[-1]
    assert run(runner(), [*CUE[1::-1], *CUE[2:]], range(4))[-1] != base
    assert run(runner(seed=1), CUE, range(4))[-1] != base
    late = list(range(100, 100 + len(CUE)))
    assert run(runner(), CUE, range(4), positions=late, key_positions=late)[-1] != base


def test_keys_come_from_the_page_that_the_plan_names():
    made = runner()
    run(made, CUE, range(4))
    run(made, [*CUE[:3], 7, *CUE[4:]], range(8, 12))
    right = run(made, [65], range(4), len(CUE))
    assert run(made, [65], [*range(3), 5], len(CUE)) == right  # the page that is written may be any
    assert run(made, [65], [8, 1, 2, 3], len(CUE)) != right


def test_a_copy_carries_so_many_tokens():
    made, tokens = runner(), CUE[:20]
    run(made, tokens, [0, 1])
    forked = run(made, [65], [0, 9], 20, copies=[Copy(1, 9, 4)])
    assert forked == run(made, [65], [0, 1], 20)
    with pytest.raises(StepFailed, match="before it was written"):
        run(made, [65], [0, 10], 20, copies=[Copy(1, 10, 3)])


@settings(max_examples=60, deadline=None)
@given(tokens=tokens, data=st.data())
def test_explicit_masks(tokens, data):
    """Causal masks spelled out are no masks; a row is changed by what it sees and by nothing else."""
    count = len(tokens)
    causal = [brle.to_ranges(brle.causal(row)) for row in range(count)]
    assert run(runner(), tokens, range(4), visible=causal) == run(runner(), tokens, range(4))
    own = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    visible = [*causal[:-1], brle.to_ranges(brle.from_bools(own))]
    base = run(runner(), tokens, range(4), visible=visible)[-1]
    at = data.draw(st.integers(0, count - 1))
    changed = [*tokens[:at], (tokens[at] + 1) % 265, *tokens[at + 1 :]]
    seen = at == count - 1 or any(own[at:-1])  # rows after it see it, so what sees those sees it too
    assert (run(runner(), changed, range(4), visible=visible)[-1] != base) == seen


def test_a_row_may_look_forward():
    visible = [((0, 3),)] * 3
    one, other = (run(runner(), each, [0], visible=visible) for each in ([1, 2, 3], [1, 2, 4]))
    assert all(a != b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"history": 1}, "before it was written"),
        ({"pages": [64]}, "not in the pool"),
        ({"pages": [-1]}, "not in the pool"),
        ({"pages": []}, "fewer pages"),
        ({"key_positions": [0, 1, 3]}, "another position"),
        ({"adapter": 3}, "slot 3"),
    ],
)
def test_a_plan_that_cannot_be_right_is_refused(change, word):
    plan = StepPlan([1, 2, 3], [0, 1, 2], [replace(segment([1, 2, 3], [0]), **change)])
    with pytest.raises((StepFailed, NotFound), match=word):
        runner().forward(plan)


def test_two_rows_in_one_slot_are_refused():
    plan = StepPlan([1, 2], [0, 0], [segment([1], [5]), segment([2], [5], start=1)])
    with pytest.raises(StepFailed, match="two rows"):
        runner().forward(plan)
    with pytest.raises(StepFailed, match="vocabulary"):
        run(runner(), [265], [0])


def generate(made, prompt, sampler, *, seed=1, mask=None, most=600):
    """The tokens up to the end of the turn, that one included."""
    found, history, tokens = [], 0, prompt
    while len(found) < most and IM_END not in found:
        positions = list(range(history, history + len(tokens)))
        readout = Readout(len(tokens) - 1, sampler, seed=seed, draw=len(found), mask=mask)
        plan = StepPlan(tokens, positions, [segment(tokens, range(64), history)], [readout])
        found.append(made.sample(made.forward(plan), plan.readouts)[0].value)
        history, tokens = history + len(tokens), found[-1:]
    return found


@pytest.mark.parametrize("sampler", [GREEDY, Sampler(), Sampler(temperature=0.6, top_p=0.95), Sampler(temperature=4.0)])
@pytest.mark.parametrize("prompt", [CUE, TOKENIZER.encode("once upon a time"), [10] * 300])
def test_every_generation_ends_within_512_tokens(sampler, prompt):
    for seed in range(3):
        found = generate(runner(seed=seed), prompt, sampler, seed=seed)
        assert found[-1] == IM_END
        assert len(found) <= 512


def test_what_it_says_looks_like_text():
    text = TOKENIZER.decode(generate(runner(), CUE, Sampler())[:-1])
    assert len(text) > 20
    assert text.isascii()
    assert text.isprintable()
    assert sum(map(str.islower, text)) > len(text) / 2


def test_masks_are_honoured_and_the_end_waits_for_them():
    digits = brle.to_bits((48, 10), 265)
    found = generate(runner(), CUE, Sampler(), mask=digits)
    assert len(found) == 600
    assert set(found) <= set(range(48, 58))
    assert len(set(found)) == 10


def test_embeddings_are_normed_and_its_own():
    made = runner()
    plan = StepPlan([1, 2, 1], [0, 1, 0], [segment([1, 2], [0]), segment([1], [1], start=2)])
    plan.readouts = [Readout(row, Sampler(kind="embedding")) for row in range(3)]
    values = [result.value for result in made.sample(made.forward(plan), plan.readouts)]
    assert all(isinstance(value, Embedding) for value in values)
    vectors = [np.frombuffer(value.data, "<f4") for value in values]
    assert vectors[0].shape == (made.shape.hidden_size,)
    assert [float((vector**2).mean()) for vector in vectors] == pytest.approx([1, 1, 1], rel=1e-5)
    assert np.array_equal(vectors[0], vectors[2])
    assert abs(float(vectors[0] @ vectors[1])) < 0.6 * made.shape.hidden_size


def test_it_needs_no_torch_and_no_network():
    script = (
        "import sys; from bakehouse.engine.runner.create import create_runner;"
        "from bakehouse.engine.spec import ModelSpec;"
        "create_runner(ModelSpec(name='d', source='dummy')).allocate(4);"
        "print({'torch', 'transformers', 'tokenizers', 'socket'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
