"""Generations and passes through a guest's calls equal those of the engine's own session."""

from __future__ import annotations

import json
from array import array
from concurrent.futures import Future
from typing import Any

import pytest

from bakehouse.engine.errors import BadRequest, DeadlineExceeded, NotFound
from bakehouse.engine.handle import Engine
from bakehouse.engine.params import GREEDY, Decode, GenerateRequest, Stop, Text
from bakehouse.inferlets.base import Failure
from bakehouse.inferlets.calls.guest import Guest
from bakehouse.inferlets.calls.packing import pack_ids
from bakehouse.inferlets.errors import Ended
from tests.inferlets.calls.support import (
    Aside,
    context,
    encoded,
    forward,
    generated,
    items,
    model,
    ready,
    start,
    state,
    taken,
)

TALE = "Once upon a time"


def reference(engine: Engine, text: str = TALE, **request: Any) -> tuple[list[int], str]:
    with engine.session("dummy", "reference") as session:
        which = session.create_context()
        session.append_tokens(which, session.encode(text))
        asked = GenerateRequest(context=which, sampler=GREEDY, decode=Decode(), **request)
        chunks = list(session.generate(asked))
    events = [event for chunk in chunks for event in chunk.events]
    text = "".join(event.text for event in events if isinstance(event, Text))
    return [token for chunk in chunks for token in chunk.tokens], text


def test_a_generation_is_the_engines(engine: Engine, guest: Guest) -> None:
    tokens, text = reference(engine, max_tokens=30, stop=Stop(tokens=()))
    told = items(guest, start(guest, context(guest), max_tokens=30, decode={}))
    assert [token for item in told for token in item["tokens"]] == tokens
    events = [event for item in told for event in item["events"]]
    assert "".join(text for kind, text in events if kind == "text") == text
    assert events[-1] == ["done", text]
    assert [item["finish"] for item in told] == [None] * (len(told) - 1) + ["length"]


def test_whole_is_the_same_in_one_item(engine: Engine, guest: Guest) -> None:
    tokens, text = reference(engine, max_tokens=30, stop=Stop(tokens=()))
    which = context(guest)
    (item,) = items(guest, start(guest, which, max_tokens=30, decode={}, whole=True))
    assert item == {"tokens": tokens, "events": [["text", text], ["done", text]], "logprobs": [], "finish": "length"}
    assert state(guest, which)["buffered"] == tokens[-1:]


def test_the_models_own_stop_tokens_are_the_default(engine: Engine, guest: Guest) -> None:
    tokens, _ = reference(engine)
    told = items(guest, start(guest, context(guest), stop=None))
    assert [token for item in told for token in item["tokens"]] == tokens
    assert told[-1]["finish"] == "stop"


def test_a_stop_string_and_log_probabilities(engine: Engine, guest: Guest) -> None:
    tokens, text = reference(engine, max_tokens=30, stop=Stop(tokens=()))
    cut = text.index(text[8:10])
    request = {"max_tokens": 30, "stop": {"tokens": [], "strings": [text[8:10]]}, "logprobs": 2, "decode": {}}
    (item,) = items(guest, start(guest, context(guest), **request, whole=True))
    assert item["tokens"] == tokens[:cut]
    assert item["finish"] == "stop"
    assert [entry[0] for entry in item["logprobs"]] == tokens[:cut]
    assert all(entry[2][0][0] == entry[0] and entry[1] == entry[2][0][1] <= 0 for entry in item["logprobs"])


def test_drafts_and_seeds_change_nothing(guest: Guest) -> None:
    plain = generated(guest, context(guest), max_tokens=40)
    assert generated(guest, context(guest), max_tokens=40, draft={"tokens": 4, "longest": 2}) == plain
    seeded = {"sampler": {"kind": "top_p", "temperature": 0.8, "top_p": 0.9, "seed": 5}, "max_tokens": 20}
    assert generated(guest, context(guest), **seeded) == generated(guest, context(guest), **seeded)


def test_penalties_and_bias_reach_the_engine(guest: Guest) -> None:
    letter = ord("Q")
    assert generated(guest, context(guest), max_tokens=5, penalties={"bias": [[letter, 500.0]]}) == [letter] * 5


def test_a_grammar_is_compiled_and_followed(guest: Guest) -> None:
    grammar = {"kind": "regex", "source": "(yes|no)!"}
    (item,) = items(guest, start(guest, context(guest), stop=None, grammar=grammar, decode={}, whole=True))
    assert item["events"][-1][1] in ("yes!", "no!")
    assert item["finish"] == "stop"


@pytest.mark.parametrize("whole", [True, False])
def test_a_grammar_that_is_none_is_told_with_the_first_item(guest: Guest, whole: bool) -> None:
    wait = start(guest, context(guest), grammar={"kind": "regex", "source": "("}, whole=whole)
    assert ready(guest, [wait], 20) == [wait]
    with pytest.raises(BadRequest, match="grammar"):
        guest.calls.waits.take(wait)
    assert guest.calls.waits.take(wait) is None


def test_a_generation_waits_for_its_grammar_and_nobody_else_does(guest: Guest) -> None:
    """What comes before it in the instance's line stands for a grammar that takes long."""
    hold: Future[None] = Future()
    guest.aside.run(lambda: hold)
    contexts = [context(guest) for _ in range(4)]
    wait, gathered, dropped, gone = (
        start(guest, which, grammar={"kind": "regex", "source": "(yes|no)!"}) for which in contexts
    )
    assert len(generated(guest, context(guest), max_tokens=5)) == 5
    blocked = Aside(lambda: items(guest, wait))
    guest.calls.passes.whole(gathered)
    guest.calls.waits.drop(dropped)
    guest.calls.contexts.release(contexts[3])
    assert ready(guest, [wait, gathered, gone]) == []
    hold.set_result(None)
    said = [token for item in blocked.result() for token in item["tokens"]]
    (whole,) = items(guest, gathered)
    assert whole["tokens"] == said and whole["finish"] == "stop"
    with pytest.raises(NotFound, match="context"):
        guest.calls.waits.take(gone)
    # The one that was dropped never began: its context is free.
    assert len(generated(guest, contexts[2], max_tokens=5)) == 5


def test_a_generation_that_waits_for_its_grammar_ends_with_its_instance(guest: Guest) -> None:
    hold: Future[None] = Future()
    guest.aside.run(lambda: hold)
    wait = start(guest, context(guest), grammar={"kind": "regex", "source": "a{3}"})
    blocked = Aside(lambda: guest.calls.waits.take(wait))
    guest.end(Failure("cancelled", "enough"))
    with pytest.raises(Ended):
        blocked.result()
    guest.close()
    hold.set_result(None)


def test_a_timeout_is_an_error_and_the_context_goes_on(guest: Guest) -> None:
    which = context(guest)
    with pytest.raises(DeadlineExceeded):
        items(guest, start(guest, which, max_tokens=5000, timeout=0))
    assert len(generated(guest, which, max_tokens=3)) == 3


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        ({"max_token": 3}, "request.max_token"),
        ({"context": 1}, "request.context"),
        ({"sampler": {"heat": 3}}, "sampler.heat"),
        ({"sampler": "greedy"}, "sampler"),
        ({"sampler": {"temperature": "hot"}}, "temperature"),
        ({"sampler": {"kind": "dist"}}, "sampler"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"stop": {"tokens": ["x"]}}, "stop.tokens"),
        ({"stop": {"tokens": [99999]}}, "stop.tokens"),
        ({"stop": {"strings": "x"}}, "stop.strings"),
        ({"grammar": {"source": "x"}}, "grammar"),
        ({"grammar": {"kind": "poem", "source": "x"}}, "grammar.kind"),
        ({"penalties": {"bias": [1]}}, "bias"),
        ({"penalties": {"bias": 1}}, "bias"),
        ({"logprobs": 1000}, "logprobs"),
        ({"zo_seed": 4}, "zo_seed"),
        ({"draft": {"tokens": 1000}}, "draft.tokens"),
        ({"decode": {"text": 1}}, "decode.text"),
        ({"whole": "yes"}, "request.whole"),
        ({"timeout": -1}, "timeout"),
    ],
)
def test_what_is_wrong_in_a_request_is_named(guest: Guest, request_: dict[str, Any], named: str) -> None:
    which = context(guest)
    with pytest.raises(BadRequest) as caught:
        guest.calls.passes.generate(which, json.dumps(request_))
    assert caught.value.field == named
    assert len(generated(guest, which, max_tokens=1)) == 1


@pytest.mark.parametrize("text", ["", "[]", "{", "nothing", '{"a":' * 5000, "1e999", "\udc80"])
def test_what_is_no_request_is_refused(guest: Guest, text: str) -> None:
    with pytest.raises(BadRequest, match="request"):
        guest.calls.passes.generate(context(guest), text)
    with pytest.raises(BadRequest, match="request"):
        guest.calls.passes.forward(model(guest), text)


@pytest.mark.parametrize("name", ["mask", "matcher", "adapter"])
@pytest.mark.parametrize("handle", [7, 0, -1, "1", 1.0, True])
def test_handles_that_are_none_are_refused(guest: Guest, name: str, handle: object) -> None:
    with pytest.raises((NotFound, BadRequest), match=name):
        start(guest, context(guest), **{name: handle})


# Single passes


def test_results_come_in_the_order_in_which_they_were_asked_for(guest: Guest) -> None:
    tokens = [ord(letter) for letter in "1, 2, 3, "]
    samplers = [
        {"indices": [8], "sampler": {"temperature": 0}},
        {"indices": [0, 8], "sampler": {"kind": "dist", "entries": 5}},
        {"indices": [8], "sampler": {"kind": "embedding"}},
        {"indices": [8], "sampler": {"kind": "dist"}},
    ]
    line, bulk = forward(guest, tokens=tokens, samplers=samplers, logprobs=1)
    size = json.loads(guest.calls.models.info(model(guest)))["vocab_size"]
    results = line["results"]
    assert [list(result) for result in results] == [
        ["token"], ["distribution"], ["distribution"], ["embedding"], ["distribution"]
    ]  # fmt: skip
    assert [result.get("distribution") for result in results] == [None, 5, 5, None, size]
    assert len(bulk) == 5 * 8 + 5 * 8 + results[3]["embedding"] + size * 8
    second = bulk[40:80]
    ids, shares = array("I", second[:20]), array("f", second[20:])
    assert ids[0] == results[0]["token"] == line["logprobs"][0][0]
    assert list(shares) == sorted(shares, reverse=True)
    assert sum(array("f", bulk[-size * 4 :])) == pytest.approx(1, abs=1e-4)


def test_passes_extend_a_context_as_a_generation_does(guest: Guest) -> None:
    expected = generated(guest, context(guest), max_tokens=5)
    which = context(guest)
    tokens: list[int] = state(guest, which)["buffered"]
    found: list[int] = []
    for _ in range(5):
        samplers = [{"indices": [len(tokens) - 1], "sampler": {"temperature": 0}}]
        line, _ = forward(guest, context=which, tokens=tokens, samplers=samplers)
        tokens = [line["results"][0]["token"]]
        found += tokens
    assert found == expected
    assert state(guest, which)["buffered"] == []


def test_drafts_are_verified_and_new_ones_offered(guest: Guest) -> None:
    expected = generated(guest, context(guest), max_tokens=3)
    which = context(guest)
    tokens = state(guest, which)["buffered"]
    line, _ = forward(
        guest,
        context=which,
        tokens=tokens,
        samplers=[{"indices": [len(tokens) - 1], "sampler": {"temperature": 0}}],
        draft_tokens=[expected[0], 255 if expected[1] != 255 else 254],
        draft_positions=[len(tokens), len(tokens) + 1],
        speculative_output=True,
    )
    assert line["accepted"] == expected[:2]
    assert len(line["next_drafts"]) == len(line["next_positions"])


def test_masks_positions_and_a_logit_mask(guest: Guest) -> None:
    tokens = [ord(letter) for letter in "abcd"]
    at_last = [{"indices": [3], "sampler": {"kind": "dist"}}]
    causal, _ = forward(guest, tokens=tokens, samplers=at_last), None
    same = forward(guest, tokens=tokens, samplers=at_last, masks=[[0, n + 1] for n in range(4)], positions=[0, 1, 2, 3])
    blind = forward(guest, tokens=tokens, samplers=at_last, masks=[[0, 1], [1, 1], [2, 1], [3, 1]])
    assert same[1] == causal[1] != blind[1]
    mask = guest.calls.grammars.create_mask(pack_ids([65, 2]))
    line, bulk = forward(guest, tokens=tokens, samplers=at_last, logit_mask=mask)
    assert line["results"] == [{"distribution": 2}]
    assert sorted(array("I", bulk[:8])) == [65, 66]


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        ({}, "tokens"),
        ({"tokens": 5}, "tokens"),
        ({"tokens": [-1]}, "tokens"),
        ({"tokens": [2**40]}, "tokens"),
        ({"tokens": [65], "positions": [1, 2]}, "positions"),
        ({"tokens": [65], "positions": [10**9]}, "positions"),
        ({"tokens": [65], "masks": [[0, -1]]}, "masks[0]"),
        ({"tokens": [65], "masks": [5]}, "masks[0]"),
        ({"tokens": [65], "masks": [[0, 1], [0, 1]]}, "masks"),
        ({"tokens": [65], "samplers": {}}, "samplers"),
        ({"tokens": [65], "samplers": [{"indices": [0]}]}, "samplers[0]"),
        ({"tokens": [65], "samplers": [{"indices": [1], "sampler": {}}]}, "samplers.indices"),
        ({"tokens": [65], "samplers": [{"indices": [0], "sampler": {"kind": "best"}}]}, "kind"),
        ({"tokens": [65], "draft_tokens": [66]}, "draft_tokens"),
        ({"tokens": [65], "speculative_output": 1}, "request.speculative_output"),
        ({"tokens": [65], "priority": 9}, "request.priority"),
    ],
)
def test_what_is_wrong_in_a_pass_is_named(guest: Guest, request_: dict[str, Any], named: str) -> None:
    with pytest.raises(BadRequest) as caught:
        taken(guest, guest.calls.passes.forward(model(guest), json.dumps(request_)))
    assert caught.value.field == named


def test_a_pass_takes_contexts_of_its_own_model_only(guest: Guest) -> None:
    which = context(guest)
    other = guest.calls.models.load("other")
    with pytest.raises(BadRequest, match="model dummy, the pass is one of other"):
        guest.calls.passes.forward(other, json.dumps({"tokens": [65], "context": which}))


def test_two_models_run_side_by_side(guest: Guest) -> None:
    other = guest.calls.contexts.create(guest.calls.models.load("other"), None)
    guest.calls.contexts.append(other, encoded(guest, TALE))
    here, there = start(guest, context(guest), max_tokens=20), start(guest, other, max_tokens=20)
    first, second = ([token for item in items(guest, wait) for token in item["tokens"]] for wait in (here, there))
    assert len(first) == len(second) == 20
    assert first != second


def test_what_is_nested_too_deeply_is_refused_by_its_name(guest: Guest) -> None:
    """Not as a defect of ours: neither reading it nor telling what was wrong may go as deep as it does."""
    which = context(guest)
    for depth in (500, 900, 100_000):
        deep = "[" * depth + "]" * depth
        for field in ("sampler", "max_tokens", "mask", "matcher", "stop"):
            with pytest.raises(BadRequest):
                guest.calls.passes.generate(which, f'{{"{field}":{deep}}}')
    tool = f'{{"name": "a", "parameters": {deep}}}'
    with pytest.raises(BadRequest, match="nested too deeply"):
        guest.calls.contexts.equip_tools(which, json.dumps([tool]))
