"""Whatever a program gives, it is answered with one error of the engine's, and the engine goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from bakehouse.engine.adapters.base import ZoParams
from bakehouse.engine.errors import BadRequest, DeadlineExceeded, EngineError, NotFound, OutOfPages
from bakehouse.engine.model import ServedModel
from bakehouse.engine.params import (
    GREEDY,
    Decode,
    ForwardRequest,
    GenerateRequest,
    GrammarSpec,
    Penalties,
    SampleAt,
    Sampler,
    SamplerKind,
    Stop,
)
from bakehouse.engine.session import Session
from bakehouse.engine.spec import ModelSpec
from tests.engine.session.support import settled

VOCABULARY = 265
LAST = (SampleAt((0,), GREEDY),)


@pytest.fixture(scope="module")
def _dummy() -> Iterator[ServedModel]:
    served = ServedModel.load(ModelSpec(name="dummy", source="dummy", kv_tokens=1024))
    yield served
    served.close()


@pytest.fixture
def session(_dummy: ServedModel) -> Iterator[Session]:
    """Afterwards the model still generates, and nothing is held."""
    with Session(_dummy, "ada") as made:
        yield made
        assert _dummy.loop.dead is None
        assert len(tokens(made, max_tokens=3)) == 3
    settled(_dummy)


def context(session: Session) -> int:
    made = session.create_context()
    session.append_tokens(made, [97, 98, 99])
    return made


def tokens(session: Session, **request: Any) -> list[int]:
    options = {"stop": Stop(tokens=()), "max_tokens": 5, **request}
    stream = session.generate(GenerateRequest(context=context(session), **options))
    return [token for chunk in stream for token in chunk.tokens]


def answer_of(call: Callable[[], Any]) -> Any:
    answer = call()
    return answer.result(20) if isinstance(answer, Future) else answer


def refused(error: type[EngineError], call: Callable[[], Any]) -> EngineError:
    with pytest.raises(error) as caught:
        answer_of(call)
    assert caught.value.detail
    return caught.value


FORWARD: list[tuple[str, dict[str, Any]]] = [
    ("tokens", {"tokens": ()}),
    ("tokens", {"tokens": None}),
    ("tokens", {"tokens": "abc"}),
    ("tokens", {"tokens": (VOCABULARY,)}),
    ("tokens", {"tokens": (-1,)}),
    ("tokens", {"tokens": (1.0,)}),
    ("tokens", {"tokens": (True,)}),
    ("positions", {"positions": (1, 2)}),
    ("positions", {"positions": ()}),
    ("positions", {"positions": (1.5,)}),
    ("positions", {"positions": (-1,)}),
    ("positions", {"positions": (2**63,)}),
    ("positions", {"positions": 5}),
    ("masks", {"masks": ()}),
    ("masks[0]", {"masks": ((),)}),
    ("masks[0]", {"masks": ((5,),)}),
    ("masks[0]", {"masks": (5,)}),
    ("masks[0]", {"masks": ((0, -1),)}),
    ("masks[0]", {"masks": (("a",),)}),
    ("samplers.indices", {"samplers": (SampleAt((1,), GREEDY),)}),
    ("samplers", {"samplers": (GREEDY,)}),
    ("samplers", {"samplers": None}),
    ("draft_tokens", {"draft_tokens": (1,)}),
    ("draft_tokens", {"draft_tokens": (VOCABULARY,), "samplers": LAST}),
    ("positions", {"draft_tokens": (1,), "draft_positions": (10**9,), "samplers": LAST}),
    ("draft_positions", {"draft_tokens": (1,), "draft_positions": (), "samplers": LAST}),
    ("logprobs", {"logprobs": 65}),
    ("priority", {"priority": "high"}),
    ("priority", {"priority": 10**30}),
    ("timeout", {"timeout": -1}),
    ("timeout", {"timeout": float("nan")}),
    ("zo_seed", {"zo_seed": 2**63}),
    ("context", {"context": "1"}),
    ("context", {"context": [1]}),
    ("context", {"context": True}),
    ("logit_mask", {"logit_mask": 7, "samplers": LAST}),
]


@pytest.mark.parametrize(("field", "request_"), FORWARD)
def test_forward_names_the_field(session: Session, field: str, request_: dict[str, Any]) -> None:
    options = {"tokens": (97,), **request_}
    assert refused(BadRequest, lambda: session.forward(ForwardRequest(**options))).field == field


GENERATE: list[tuple[str, dict[str, Any]]] = [
    ("max_tokens", {"max_tokens": -1}),
    ("max_tokens", {"max_tokens": 2.0}),
    ("max_tokens", {"max_tokens": True}),
    ("sampler", {"sampler": None}),
    ("sampler", {"sampler": Sampler(SamplerKind.DIST)}),
    ("stop", {"stop": None}),
    ("penalties", {"penalties": None}),
    ("draft", {"draft": 5}),
    ("decode", {"decode": True}),
    ("grammar", {"grammar": "json"}),
    ("grammar", {"grammar": GrammarSpec("json"), "logit_mask": (0, 5)}),
    ("logit_mask", {"logit_mask": (VOCABULARY,)}),
    ("logit_mask", {"logit_mask": (VOCABULARY + 5, 10)}),
    ("logit_mask", {"logit_mask": (0, 0, 0)}),
    ("logit_mask", {"logit_mask": (-1, 10)}),
    ("matcher", {"matcher": "x"}),
    ("priority", {"priority": 0.5}),
    ("grammar.source", {"grammar": GrammarSpec("json_schema", "{")}),
    ("grammar.source", {"grammar": GrammarSpec("json_schema", "false")}),
    ("grammar.source", {"grammar": GrammarSpec("json_schema", '{"enum": []}')}),
    ("grammar.source", {"grammar": GrammarSpec("regex", "(")}),
    ("grammar.source", {"grammar": GrammarSpec("regex", r"[^\s\S]")}),
    ("grammar.source", {"grammar": GrammarSpec("regex", "\ud800")}),
    ("grammar.source", {"grammar": GrammarSpec("ebnf", "root ::= root")}),
    ("grammar", {"grammar": GrammarSpec("json_schema", '{"type": "integer", "minimum": 5, "maximum": 2}')}),
]


@pytest.mark.parametrize(("field", "request_"), GENERATE)
def test_generate_names_the_field(session: Session, field: str, request_: dict[str, Any]) -> None:
    assert (refused(BadRequest, lambda: tokens(session, **request_)).field or "").startswith(field)


@pytest.mark.parametrize("strings", [("",), (5,), "end", ("\ud800",), 7, ("x",) * 65, ("x" * 1025,)])
def test_stop_strings_are_few_short_texts(strings: Any) -> None:
    assert refused(BadRequest, lambda: Stop(strings=strings)).field == "stop.strings"


@pytest.mark.parametrize("ids", [("a",), (-3,), 5])
def test_stop_tokens_are_ids(ids: Any) -> None:
    assert refused(BadRequest, lambda: Stop(tokens=ids)).field == "stop.tokens"


@pytest.mark.parametrize("bias", [{97: 1.0}, ((97,),), ((97, float("nan")),), 4])
def test_biases_are_pairs(bias: Any) -> None:
    assert refused(BadRequest, lambda: Penalties(bias=bias)).field == "bias"


def test_a_bias_of_an_id_that_the_model_does_not_have_breaks_its_own_request_only(session: Session) -> None:
    other = session.generate(GenerateRequest(context=context(session), sampler=GREEDY, max_tokens=40, stop=Stop(())))
    refused(BadRequest, lambda: tokens(session, penalties=Penalties(bias=((VOCABULARY, 1.0),))))
    assert len([token for chunk in other for token in chunk.tokens]) == 40


def test_lists_are_as_good_as_tuples(session: Session) -> None:
    """A list is kept as a tuple: its caller may go on changing it, and the loop relies on it."""
    given: list[int] = [97, 98]
    made = session.create_context()
    session.append_tokens(made, iter(given))
    request = ForwardRequest(
        context=made,
        tokens=given,  # type: ignore[arg-type]
        samplers=[SampleAt([1], GREEDY)],  # type: ignore[arg-type]
        positions=[0, 1],  # type: ignore[arg-type]
        masks=[[0, 1], [0, 2]],  # type: ignore[arg-type]
    )
    given.clear()
    listed = session.forward(request).result(20)
    plain = session.forward(ForwardRequest(tokens=(97, 98), samplers=(SampleAt((1,), GREEDY),))).result(20)
    assert listed.results == plain.results
    assert session.context_state(made).buffered == ()


@pytest.mark.parametrize("call", ["set_cursor", "reserve_pages", "release_pages"])
@pytest.mark.parametrize("count", [-1, 1.5, "a", None, True])
def test_counts_are_integers(session: Session, call: str, count: Any) -> None:
    refused(BadRequest, lambda: getattr(session, call)(context(session), count))


def test_more_pages_than_there_are(session: Session) -> None:
    refused(OutOfPages, lambda: session.reserve_pages(context(session), 10**9))
    refused(OutOfPages, lambda: session.forward(ForwardRequest(tokens=(97,) * 2000)))
    error = refused(OutOfPages, lambda: tokens(session, max_tokens=None))
    assert "pages" in error.detail


@pytest.mark.parametrize("indices", [[0], [-1], ["a"], [0, 0]])
def test_pages_that_are_not_full_are_not_committed(session: Session, indices: list[Any]) -> None:
    refused(BadRequest, lambda: session.commit_pages(context(session), indices))


@pytest.mark.parametrize("name", [5, "", ["a"], "x" * 5000])
def test_names_are_short_texts(session: Session, name: Any) -> None:
    assert refused(BadRequest, lambda: session.create_context(name)).field == "name"
    assert refused(BadRequest, lambda: session.fork_context(context(session), name)).field == "name"


@pytest.mark.parametrize("text", [5, None, b"bytes"])
def test_turns_are_texts(session: Session, text: Any) -> None:
    made = context(session)
    for turn in (session.system, session.user, session.assistant):
        refused(BadRequest, lambda turn=turn: turn(made, text))
    refused(BadRequest, lambda: session.answer_tool(made, text, text))
    refused(BadRequest, lambda: session.encode(text))
    assert session.context_state(made).buffered == (97, 98, 99)


@pytest.mark.parametrize("request_", [{}, {"sampler": GREEDY}, {"decode": Decode(), "grammar": GrammarSpec("json")}])
def test_no_time_is_too_little(session: Session, request_: dict[str, Any]) -> None:
    refused(DeadlineExceeded, lambda: tokens(session, timeout=0, **request_))
    refused(DeadlineExceeded, lambda: session.forward(ForwardRequest(tokens=(97,), timeout=0)))
    refused(
        DeadlineExceeded, lambda: session.forward(ForwardRequest(context=context(session), tokens=(97,), timeout=0))
    )


def test_a_generation_that_runs_out_of_time_leaves_what_was_taken(session: Session) -> None:
    made = context(session)
    options = {"sampler": GREEDY, "stop": Stop(()), "max_tokens": 900}
    stream = session.generate(GenerateRequest(context=made, timeout=0.03, **options))  # type: ignore[arg-type]
    got: list[int] = []
    refused(DeadlineExceeded, lambda: got.extend(token for chunk in stream for token in chunk.tokens))
    if got:
        assert session.context_state(made).buffered == (got[-1],)
    again = session.generate(GenerateRequest(context=made, **{**options, "max_tokens": 5}))  # type: ignore[arg-type]
    whole = tokens(session, **{**options, "max_tokens": len(got) + 5})
    assert got + [token for chunk in again for token in chunk.tokens] == whole


RELEASED: dict[str, Callable[[Session, int], Any]] = {
    "generate": lambda session, gone: session.generate(GenerateRequest(context=gone)),
    "forward": lambda session, gone: session.forward(ForwardRequest(context=gone, tokens=(1,))),
    "flush": lambda session, gone: session.flush(gone),
    "fork": lambda session, gone: session.fork_context(gone),
    "release": lambda session, gone: session.release_context(gone),
    "state": lambda session, gone: session.context_state(gone),
    "append": lambda session, gone: session.append_tokens(gone, [1]),
    "user": lambda session, gone: session.user(gone, "hello"),
    "cursor": lambda session, gone: session.set_cursor(gone, 0),
}


@pytest.mark.parametrize("call", RELEASED)
def test_a_released_context_is_not_found(session: Session, call: str) -> None:
    gone = context(session)
    session.release_context(gone)
    assert refused(NotFound, lambda: RELEASED[call](session, gone)).field == "context"


ADAPTER: dict[str, tuple[type[EngineError], Callable[[Session, int], Any]]] = {
    "unknown in a generation": (NotFound, lambda session, _: tokens(session, adapter=99)),
    "unknown in a pass": (NotFound, lambda session, _: session.forward(ForwardRequest(tokens=(1,), adapter=99))),
    "no name": (BadRequest, lambda session, _: session.create_adapter("")),
    "no folder": (NotFound, lambda session, of: session.load_adapter(of, "/nonexistent")),
    "no place": (BadRequest, lambda session, of: session.save_adapter(of, "/proc/nowhere/a")),
    "no rank": (BadRequest, lambda session, of: session.initialize_zo(of, ZoParams(0, 1.0, 4, 0.5, 0.1))),
    "no candidates": (BadRequest, lambda session, of: session.initialize_zo(of, ZoParams(2, 1.0, 0, 0.5, 0.1))),
    "no number": (BadRequest, lambda session, of: session.initialize_zo(of, ZoParams(2, float("nan"), 4, 0.5, 0.1))),
    "too large": (BadRequest, lambda session, of: session.initialize_zo(of, ZoParams(10**6, 1.0, 4, 0.5, 0.1))),
    "no optimiser": (BadRequest, lambda session, of: session.update_zo(of, [1.0, 2.0], [1, 2])),
}


@pytest.mark.parametrize("case", ADAPTER)
def test_adapters_say_what_is_wrong(session: Session, case: str) -> None:
    error, call = ADAPTER[case]
    adapter = session.create_adapter("bread").result(20)
    try:
        refused(error, lambda: call(session, adapter))
    finally:
        session.remove_adapter(adapter).result(20)
