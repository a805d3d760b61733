"""Models, contexts and decoders."""

from __future__ import annotations

import json
from array import array
from typing import Any

import pytest

from bakehouse.engine.errors import BadRequest, NameTaken, NotFound
from bakehouse.engine.handle import Engine
from bakehouse.inferlets.calls.guest import Guest
from bakehouse.inferlets.calls.packing import pack_ids, unpack_ids
from tests.inferlets.calls.support import Make, context, encoded, generated, model, state, taken

WEATHER = json.dumps({"name": "weather", "parameters": {"type": "object", "properties": {"place": {"type": "string"}}}})


# Models


def test_models_are_named_and_loaded_once(guest: Guest) -> None:
    models = guest.calls.models
    assert json.loads(models.names()) == ["dummy", "other"]
    assert models.load("dummy") == models.load("dummy") != models.load("other")
    info = json.loads(models.info(models.load("other")))
    assert info["name"] == "other"
    assert info.keys() == {
        "name", "architecture", "family", "vocab_size", "hidden_size", "layers", "max_context", "page_size",
        "stop_tokens",
    }  # fmt: skip
    with pytest.raises(NotFound, match="Model 'big' not found; served are: dummy, other"):
        models.load("big")
    with pytest.raises(NotFound, match="model 9"):
        models.info(9)


def test_the_tokenizer(guest: Guest) -> None:
    models, which = guest.calls.models, model(guest)
    ids = unpack_ids(models.encode(which, "größer<|im_end|>"))
    assert len(ids) == len("größer".encode()) + 1
    assert models.decode(which, pack_ids(ids)) == "größer<|im_end|>"
    assert models.encode(which, "") == models.decode(which, "") == ""
    assert models.split_regex(which) == ""
    with pytest.raises(BadRequest, match="text"):
        models.encode(which, b"x")  # type: ignore[arg-type]


def listing(text: str) -> dict[int, bytes]:
    line, _, bulk = text.partition("\n")
    count, data = int(line), bulk.encode("latin-1")
    ids, lengths = array("I", data[: 4 * count]), array("I", data[4 * count : 8 * count])
    found, at = {}, 8 * count
    for token, length in zip(ids, lengths, strict=True):
        found[token] = data[at : at + length]
        at += length
    assert at == len(data)
    return found


def test_the_vocabulary_and_its_special_tokens(guest: Guest, make: Make) -> None:
    models, which = guest.calls.models, model(guest)
    vocabulary, special = listing(models.vocabulary(which)), listing(models.special_tokens(which))
    assert vocabulary[65] == b"A"
    assert special.items() <= vocabulary.items()
    assert b"<|im_end|>" in special.values()
    second = make()
    assert second.calls.models.vocabulary(model(second)) is models.vocabulary(which)


# Contexts


def test_a_context_holds_what_is_put_into_it(guest: Guest) -> None:
    contexts, which = guest.calls.contexts, context(guest, "abc")
    contexts.append(which, pack_ids([100]))
    assert state(guest, which) == {
        "name": None, "committed_pages": 0, "cursor": 0, "buffered": [97, 98, 99, 100], "last_position": None,
        "page_size": 4,
    }  # fmt: skip
    contexts.set_buffer(which, pack_ids(range(97, 97 + 10)))
    assert taken(guest, guest.calls.passes.flush(which)) == ""
    found = state(guest, which)
    assert (found["committed_pages"], found["cursor"], found["buffered"]) == (2, 1, [106])
    assert found["last_position"] == 8
    contexts.set_cursor(which, 0)
    assert state(guest, which)["cursor"] == 0


def test_pages_by_hand(guest: Guest) -> None:
    contexts, which = guest.calls.contexts, context(guest, "abcdefghi")
    contexts.reserve_pages(which, 3)
    taken(guest, guest.calls.passes.flush(which))
    assert (state(guest, which)["committed_pages"], state(guest, which)["cursor"]) == (0, 8)
    contexts.commit_pages(which, pack_ids([0]))
    assert (state(guest, which)["committed_pages"], state(guest, which)["cursor"]) == (1, 4)
    contexts.release_pages(which, 1)
    assert state(guest, which)["cursor"] == 0
    with pytest.raises(BadRequest, match="indices"):
        contexts.commit_pages(which, pack_ids([5]))


def test_turns_are_the_sessions(engine: Engine, guest: Guest) -> None:
    contexts = guest.calls.contexts
    which = contexts.create(model(guest), None)
    for role, text in (("system", "Be brief."), ("user", "Hello"), ("assistant", "Hi")):
        contexts.say(which, role, text)
    contexts.equip_tools(which, json.dumps([WEATHER]))
    contexts.answer_tool(which, "weather", "sunny")
    contexts.cue(which)
    contexts.seal(which)
    contexts.seal(which)
    with engine.session("dummy", "ada") as session:
        own = session.create_context()
        session.system(own, "Be brief.")
        session.user(own, "Hello")
        session.assistant(own, "Hi")
        session.equip_tools(own, [WEATHER])
        session.answer_tool(own, "weather", "sunny")
        session.cue(own)
        session.seal(own)
        assert state(guest, which)["buffered"] == list(session.context_state(own).buffered)


def test_forks_go_their_own_way(guest: Guest) -> None:
    which = context(guest)
    expected = generated(guest, which, max_tokens=4)
    fork = guest.calls.contexts.fork(which, "fork")
    assert state(guest, fork)["name"] == "fork"
    more = generated(guest, fork, max_tokens=4)
    assert generated(guest, which, max_tokens=4) == more
    assert len(expected) == 4
    with pytest.raises(NameTaken):
        guest.calls.contexts.fork(which, "fork")


def test_named_contexts_outlive_their_instance_and_are_their_owners(make: Make) -> None:
    first = make()
    which = first.calls.contexts.create(model(first), "prefix")
    first.calls.contexts.append(which, encoded(first, "abc"))
    first.close()
    second, stranger = make(), make(owner="bob")
    found = second.calls.contexts.lookup(model(second), "prefix")
    assert found is not None
    assert state(second, found)["buffered"] == [97, 98, 99]
    assert second.calls.contexts.lookup(model(second), "prefix") == found
    assert stranger.calls.contexts.lookup(model(stranger), "prefix") is None
    assert second.calls.contexts.lookup(model(second), "other") is None


def test_handles_mean_nothing_elsewhere_or_after_release(make: Make, guest: Guest) -> None:
    which = context(guest)
    with pytest.raises(NotFound, match=f"context {which}"):
        state(make(), which)
    guest.calls.contexts.release(which)
    for use in (guest.calls.contexts.state, guest.calls.contexts.release, guest.calls.passes.flush):
        with pytest.raises(NotFound, match=f"context {which}"):
            use(which)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda calls, which: calls.say(which, "tool", "x"), "role"),
        (lambda calls, which: calls.say(which, "user", 5), "text"),
        (lambda calls, which: calls.append(which, "abc"), "ids"),
        (lambda calls, which: calls.append(which, pack_ids([10**6])), "tokens"),
        (lambda calls, which: calls.append(which, "\u1234"), "ids"),
        (lambda calls, which: calls.commit_pages(which, "\u1234"), "indices"),
        (lambda calls, which: calls.set_cursor(which, 7), "cursor"),
        (lambda calls, which: calls.equip_tools(which, "{}"), "tools"),
        (lambda calls, which: calls.equip_tools(which, '["no JSON"]'), "tools"),
        (lambda calls, which: calls.fork(which, ""), "name"),
        (lambda calls, which: calls.fork(which, "x" * 2000), "name"),
        (lambda calls, which: calls.state("1"), "context"),
        (lambda calls, which: calls.state(True), "context"),
    ],
)
def test_what_is_wrong_is_named(guest: Guest, call: Any, named: str) -> None:
    which = context(guest, "abc")
    with pytest.raises(BadRequest) as caught:
        call(guest.calls.contexts, which)
    assert named in str(caught.value.field or caught.value.detail)
    assert state(guest, which)["buffered"] == [97, 98, 99]


# Decoders


def test_a_decoder_makes_events_of_any_ids(guest: Guest) -> None:
    decoders = guest.calls.decoders
    which = decoders.create(model(guest), True, True)
    ids = encoded(guest, "a<think>b</think>ü")
    told = [event for at in range(0, len(ids), 4) for event in json.loads(decoders.feed(which, ids[at : at + 4]))]
    told += json.loads(decoders.finish(which))
    assert ["thinking_done", "b"] in told
    assert "".join(event[1] for event in told if event[0] == "text") == "aü"
    assert told[-1] == ["done", "aü"]
    assert json.loads(decoders.feed(which, encoded(guest, "x"))) == [["text", "x"]]
    decoders.reset(which)
    assert json.loads(decoders.finish(which)) == [["done", ""]]
    decoders.release(which)
    with pytest.raises(NotFound):
        decoders.feed(which, ids)
    with pytest.raises(BadRequest, match="reasoning"):
        decoders.create(model(guest), 1, False)  # type: ignore[arg-type]


def test_tool_calls_are_events(guest: Guest) -> None:
    decoders = guest.calls.decoders
    which = decoders.create(model(guest), False, True)
    call = '<tool_call>\n{"name": "weather", "arguments": {"place": "Rome"}}\n</tool_call>'
    told = json.loads(decoders.feed(which, encoded(guest, call))) + json.loads(decoders.finish(which))
    assert ["tool_call_start"] in told
    (found,) = (event for event in told if event[0] == "tool_call")
    assert (found[1], json.loads(found[2])) == ("weather", {"place": "Rome"})
