"""Values that a program may well pass by mistake, or from another library: told alike in the sandbox and outside."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from inferlet import (
    Adapter,
    Context,
    ForwardPass,
    Grammar,
    Mask,
    Matcher,
    Model,
    Penalties,
    Sampler,
    _program,
    masks,
    zo,
)
from inferlet.errors import BadRequest

from tests.inferlets.sdk import odd_program
from tests.inferlets.sdk.test_sandboxed import Launched, launch, sandbox

__all__ = ["launch", "sandbox"]

GREEDY = Sampler.greedy()
GOOD = {
    "ids-bytes": "[97, 98, 99, 100]",
    "decode-bytes": "'abcd'",
    "nul": "[97, 0, 98]",
    "word": "None",
    "feed-bytes": "True",
    "runs": "None",
    "indices": "3",
    "empty": "(None, None, None)",
    "still-fine": "3",
}
OTHER = {
    "ids-text": "TypeError: cannot use a str to initialize an array with typecode 'I'",
    "matcher": "TypeError: logit_mask",
    "no-ids": "BadRequest: logit_mask",
    "spawn-name": "NotFound: not/a name is not installed for ada",
    "connect": "McpError: there is no MCP server 'nobody'; there are",
}


def test_what_cannot_be_is_refused_and_ends_no_program(model: Model, launch: Launched) -> None:
    native = odd_program.main()
    assert {name: said for name, said in native.items() if not said.startswith("BadRequest")} == {
        name: said for name, said in {**OTHER, **GOOD}.items() if not said.startswith("BadRequest")
    }
    outcome = launch(Path(odd_program.__file__).read_text())
    assert outcome.failure is None
    assert json.loads(outcome.result) == native


def test_a_program_in_the_sandbox_is_connected_from_the_start(launch: Launched) -> None:
    outcome = launch('import inferlet\n\nwith inferlet.connect("ws://127.0.0.1:8080"):\n    pass\n')
    assert outcome.failure is not None and "has its host already" in outcome.failure.message


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("def main():\n    return chr(0xD800)\n", "cannot be said as text"),
        ("def main():\n    return [{1}]\n", "cannot be said as text"),
        ("raise KeyError(chr(0xD800))\n", "KeyError: '\\ud800'"),
        ("raise ValueError(chr(0xD800))\n", "ValueError: \\ud800"),
    ],
)
def test_an_end_that_is_no_text(launch: Launched, source: str, text: str) -> None:
    outcome = launch(source)
    assert outcome.failure is not None and text in outcome.failure.message
    with pytest.raises(_program.ProgramError, match="cannot be said"):
        _program.text_of("\udfff")


def test_numbers_of_other_libraries_count(ctx: Context) -> None:
    """Arrays and scalars, wherever ids, positions, masks, scores and options go."""
    model, two, ids = ctx.model, np.int64(2), np.array([97, 98])
    ctx.fill_tokens(ids)
    assert ctx.buffered_tokens[-2:] == [97, 98] and model.tokenizer().decode(ids) == "ab"
    options = {"max_tokens": two, "stop_tokens": np.array([5]), "timeout": np.float32(20), "logprobs": two}
    spread = Penalties(bias={np.int64(113): np.float32(100)})  # type: ignore[dict-item]
    assert ctx.fork().generate_text(Sampler.top_p(np.float32(0.9)), penalties=spread, **options) == "qq"  # type: ignore[arg-type]
    mask = np.array([120, 3])
    assert set(ctx.fork().generate_text(GREEDY, max_tokens=4, logit_mask=mask)) <= set("xyz")  # type: ignore[arg-type]
    assert Mask.of(mask).allowed() == Mask.allowing(np.array([120, 121, 122])).allowed()
    step = ForwardPass(model).input_tokens(ids, np.array([0, 1])).input_tokens(ids, np.array([2, 3]))
    step.attention_mask([np.array([0, at + 1]) for at in range(4)]).logit_mask(mask)
    assert set(step.sampler(np.array([1, 3]), GREEDY).execute().value) <= {120, 121, 122}
    Matcher(Grammar.from_regex("ab"), model.tokenizer()).accept_tokens(ids)
    adapter = Adapter.create(model, "numbers")
    try:
        zo.initialize(adapter, 4, 8.0, 4, 0.5, 0.1)
        zo.update(adapter, np.arange(4, dtype=np.float32), np.arange(1, 5))  # type: ignore[arg-type]
        ctx.generate_text(GREEDY, max_tokens=1, adapter=adapter, zo_seed=two)
    finally:
        adapter.remove()


def test_what_is_no_number_is_named(ctx: Context) -> None:
    with pytest.raises(TypeError, match="object"):
        ctx.generate_text(GREEDY, max_tokens=object())  # type: ignore[arg-type]
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(BadRequest, match="number"):
            ctx.generate_text(Sampler.multinomial(wrong))


def test_a_mask_of_no_ids_is_not_one_of_all() -> None:
    assert masks.runs_of([]) == [0] and masks.allowed([0]) == []
