"""The coarse loop: stop rules, seeds, drafts, grammars, and the context afterwards."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bakehouse.engine.errors import BadRequest, NotFound
from bakehouse.engine.params import (
    GREEDY,
    Decode,
    Done,
    FinishReason,
    GenerateRequest,
    GrammarSpec,
    Penalties,
    PromptLookup,
    Sampler,
    SamplerKind,
    Stop,
    Text,
    ToolCall,
)
from bakehouse.engine.session import Session
from tests.engine.session.support import Programs, generate, read, text_context, tokens_of

SEEDED = Sampler(SamplerKind.TOP_P, temperature=0.8, top_p=0.95, seed=11)
NEVER = Stop(tokens=())
PROMPT = "Once upon a time there was a bakery, and the bakery was "


@pytest.fixture
def session(programs: Programs) -> Session:
    return programs()


def test_after_max_tokens_the_last_one_is_buffered(session):
    context = text_context(session, PROMPT)
    chunks = list(session.generate(GenerateRequest(context=context, sampler=GREEDY, max_tokens=20, stop=NEVER)))
    tokens = tokens_of(chunks)
    assert len(tokens) == 20
    assert [chunk.finish for chunk in chunks] == [None] * 19 + [FinishReason.LENGTH]
    state = session.context_state(context)
    assert state.buffered == (tokens[-1],)
    assert state.committed_pages * state.page_size + state.cursor == len(PROMPT) + 19
    assert state.last_position == len(PROMPT) + 18


def test_no_tokens_are_no_step(session):
    context = text_context(session, PROMPT)
    before = session.context_state(context)
    (chunk,) = session.generate(GenerateRequest(context=context, max_tokens=0))
    assert (chunk.tokens, chunk.finish) == ((), FinishReason.LENGTH)
    assert session.context_state(context) == before


def test_a_stop_token_is_buffered_and_not_yielded_and_seal_does_not_double_it(session):
    context = session.create_context()
    session.user(context, "Say something short.")
    session.cue(context)
    chunks = list(session.generate(GenerateRequest(context=context, sampler=SEEDED)))
    assert chunks[-1].finish is FinishReason.STOP
    assert not set(tokens_of(chunks)) & set(session.model.stop_tokens)
    state = session.context_state(context)
    assert len(state.buffered) == 1 and state.buffered[0] in session.model.stop_tokens
    session.seal(context)
    assert session.context_state(context) == state
    assert state.last_position is not None


def test_seal_ends_a_turn_that_ran_out_of_tokens(session):
    context = session.create_context()
    session.user(context, "Say something long.")
    session.cue(context)
    tokens = generate(session, context, sampler=GREEDY, max_tokens=3, stop=NEVER)
    session.seal(context)
    assert session.context_state(context).buffered == (tokens[-1], session.encode("<|im_end|>")[0])


def test_going_on_gives_what_one_long_generation_gives(session):
    whole = generate(session, text_context(session, PROMPT), sampler=GREEDY, max_tokens=40, stop=NEVER)
    context = text_context(session, PROMPT)
    parts: list[int] = []
    for count in (1, 7, 16, 3, 13):
        parts += generate(session, context, sampler=GREEDY, max_tokens=count, stop=NEVER)
    assert parts == whole


def test_seeds_are_honoured_and_unseeded_differs(session):
    def run(sampler: Sampler) -> list[int]:
        return generate(session, text_context(session, PROMPT), sampler=sampler, max_tokens=40, stop=NEVER)

    hot = Sampler(temperature=1.5, seed=5)
    assert run(hot) == run(hot)
    assert run(hot) != run(Sampler(temperature=1.5, seed=6))
    assert run(Sampler(temperature=1.5)) != run(Sampler(temperature=1.5))


@pytest.mark.parametrize(
    "options",
    [
        {"sampler": GREEDY},
        {"sampler": SEEDED},
        {"sampler": SEEDED, "penalties": Penalties(repetition=1.3, frequency=0.4, presence=0.3)},
        {"sampler": SEEDED, "grammar": GrammarSpec("regex", "([a-c]{2,4} ){12}")},
        {"sampler": SEEDED, "logit_mask": (97, 3, 29, 1)},
        {"sampler": GREEDY, "logprobs": 3},
    ],
    ids=["greedy", "seeded", "penalties", "grammar", "mask", "logprobs"],
)
def test_drafts_change_nothing_but_the_number_of_steps(session, options):
    def run(draft: PromptLookup | None) -> tuple[list[int], list[object], object, int]:
        context = text_context(session, PROMPT)
        request = GenerateRequest(context=context, max_tokens=48, draft=draft, **options)
        chunks = list(session.generate(request))
        logprobs = [(entry.token, round(entry.logprob, 4)) for chunk in chunks for entry in chunk.logprobs]
        state = session.context_state(context)
        return tokens_of(chunks), logprobs, (chunks[-1].finish, state.buffered, state.last_position), len(chunks)

    plain = run(None)
    for lookup in (PromptLookup(tokens=6, longest=2), PromptLookup(tokens=16, longest=8, shortest=3)):
        drafted = run(lookup)
        assert drafted[:3] == plain[:3]
        assert drafted[3] <= plain[3]


def test_drafts_that_hold_save_steps(session):
    context = text_context(session, "abababababababababab")
    request = GenerateRequest(
        context=context, sampler=GREEDY, max_tokens=32, logit_mask=(97, 1), draft=PromptLookup(), stop=NEVER
    )
    session.set_buffer(context, session.encode("a" * 40))
    chunks = list(session.generate(request))
    assert tokens_of(chunks) == session.encode("a" * 32)
    assert len(chunks) < 8


def test_drafts_that_a_matcher_refuses_leave_it_where_the_text_is(session, served):
    """The text before says how it goes on, and is wrong: the matcher holds the model to something else."""
    context = text_context(session, "the red hen, the red fox, the red hen, ")
    matcher = session.create_matcher(GrammarSpec("regex", "the red cow, the red ant, the end")).result()
    before = served.loop.stats()
    said = ""
    for tokens in (14, 13, 6):
        lookup = PromptLookup(tokens=16, longest=8, shortest=3)
        request = GenerateRequest(context=context, sampler=GREEDY, max_tokens=tokens, matcher=matcher, draft=lookup)
        said += session.decode(tokens_of(list(session.generate(request))))
    after = served.loop.stats()
    assert said == "the red cow, the red ant, the end"
    assert 0 < after["plan_rejected"] - before["plan_rejected"] < after["plan_drafted"] - before["plan_drafted"]
    assert after["steps"] - before["steps"] < len(said)
    assert not session.matcher_terminated(matcher)
    session.matcher_accept(matcher, sorted(served.chat.stop_tokens)[:1])
    assert session.matcher_terminated(matcher)


def test_a_stop_string_is_cut_and_the_context_holds_what_was_yielded(session):
    options = {"sampler": GREEDY, "stop": NEVER, "max_tokens": 60, "decode": Decode()}
    whole = generate(session, text_context(session, PROMPT), **options)
    text = session.decode(whole)
    stop = text[20:24]
    context = text_context(session, PROMPT)
    chunks = list(session.generate(GenerateRequest(context=context, **options | {"stop": Stop((), (stop,))})))
    yielded = tokens_of(chunks)
    expected = text[: text.index(stop)]
    assert session.decode(yielded) == expected
    events = [event for chunk in chunks for event in chunk.events]
    assert "".join(event.text for event in events if isinstance(event, Text)) == expected
    assert events[-1] == Done(expected)
    assert chunks[-1].finish is FinishReason.STOP
    assert session.context_state(context).buffered == (yielded[-1],)
    rest = generate(session, context, **options | {"max_tokens": 60 - len(yielded)})
    assert yielded + rest == whole


def test_the_same_stop_string_with_drafts(session):
    options = {"sampler": GREEDY, "stop": NEVER, "max_tokens": 60}
    whole = generate(session, text_context(session, PROMPT), **options)
    stop = Stop((), (session.decode(whole)[31:33],))

    def run(draft: PromptLookup | None) -> tuple[list[int], object]:
        context = text_context(session, PROMPT)
        tokens = generate(session, context, **options | {"stop": stop, "draft": draft})
        state = session.context_state(context)
        return tokens, (state.buffered, state.last_position)

    assert run(None) == run(PromptLookup(tokens=8, longest=1))


def test_the_longest_context_ends_a_generation(programs, session):
    longest = session.model.max_context
    context = session.create_context()
    session.append_tokens(context, [97] * (longest - 5))
    tokens = generate(session, context, sampler=GREEDY, stop=NEVER)
    assert len(tokens) == 6  # the last one has no position to be run at
    session.append_tokens(context, [97])
    with pytest.raises(BadRequest, match="shorten the prompt"):
        session.generate(GenerateRequest(context=context))


def test_an_empty_buffer_is_refused(session):
    with pytest.raises(BadRequest, match="at least one buffered token"):
        session.generate(GenerateRequest(context=session.create_context()))


SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0}},
        "required": ["name", "age"],
    }
)


@pytest.mark.parametrize("draft", [None, PromptLookup()])
@pytest.mark.parametrize("seed", range(1, 6))
def test_a_grammar_holds_to_the_end(session, seed, draft):
    context = text_context(session, "Give me JSON: ")
    request = GenerateRequest(
        context=context,
        sampler=Sampler(temperature=2.0, seed=seed),
        grammar=GrammarSpec("json_schema", SCHEMA),
        max_tokens=300,
        draft=draft,
    )
    chunks = list(session.generate(request))
    if chunks[-1].finish is FinishReason.STOP:
        value = json.loads(session.decode(tokens_of(chunks)))
        assert set(value) == {"name", "age"} and isinstance(value["age"], int) and len(value["name"]) <= 8


def test_a_matcher_is_stepped_as_if_the_caller_had(session):
    matcher = session.create_matcher(GrammarSpec("regex", "[ab]{10}")).result(20)
    context = text_context(session, PROMPT)
    tokens = generate(session, context, sampler=SEEDED, matcher=matcher, max_tokens=4)
    assert len(tokens) == 4
    more = generate(session, context, sampler=SEEDED, matcher=matcher)
    assert len(session.decode(tokens + more)) == 10
    assert not session.matcher_terminated(matcher)
    session.matcher_accept(matcher, [session.model.stop_tokens[0]])
    assert session.matcher_terminated(matcher)


def test_a_lent_matcher_is_not_to_be_used(session):
    matcher = session.create_matcher(GrammarSpec("regex", "[ab]{10}")).result(20)
    stream = session.generate(GenerateRequest(context=text_context(session, PROMPT), matcher=matcher))
    with pytest.raises(BadRequest, match="in use"):
        session.matcher_mask(matcher)
    taken = read(stream, 3)
    stream.close()
    session.matcher_accept(matcher, session.encode("a" * (10 - len(taken))))
    assert session.matcher_mask(matcher)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(taken=st.integers(1, 40), draft=st.booleans(), prompt=st.integers(1, 40))
def test_a_stream_closed_early_leaves_what_its_reader_took(session, taken, draft, prompt):
    """However far the engine ran ahead: the context goes on as if exactly this much had been generated."""
    lookup = PromptLookup(longest=1) if draft else None
    options = {"sampler": GREEDY, "stop": NEVER, "draft": lookup}
    whole = generate(session, text_context(session, "x" * prompt), **options, max_tokens=70)
    context = text_context(session, "x" * prompt)
    stream = session.generate(GenerateRequest(context=context, **options, max_tokens=60))
    got = read(stream, taken)
    child = session.fork_context(context)
    stream.close()
    assert got == whole[: len(got)]
    for one in (context, child):
        state = session.context_state(one)
        assert state.buffered == (got[-1],)
        assert state.last_position == prompt + len(got) - 2
        assert generate(session, one, **options, max_tokens=10) == whole[len(got) : len(got) + 10]
        session.release_context(one)


def test_while_a_stream_is_open_its_context_is_not_to_be_changed(session):
    context = text_context(session, PROMPT)
    stream = session.generate(GenerateRequest(context=context, stop=NEVER))
    next(stream)
    with pytest.raises(BadRequest, match="generating"):
        session.append_tokens(context, [1])
    with pytest.raises(BadRequest, match="generating"):
        session.flush(context)
    stream.close()
    session.append_tokens(context, [1])


def test_logprobs_come_with_their_tokens(session):
    request = GenerateRequest(
        context=text_context(session, PROMPT), sampler=SEEDED, logprobs=4, max_tokens=12, stop=Stop((), ("zz",))
    )
    for chunk in session.generate(request):
        assert [entry.token for entry in chunk.logprobs] == list(chunk.tokens)
        for entry in chunk.logprobs:
            assert len(entry.top) == 4
            assert entry.top[0][1] >= entry.logprob


def test_a_decoder_on_its_own_gives_what_a_generation_gives(session):
    decode = Decode(reasoning=True, tool_use=True)
    context = session.create_context()
    session.user(context, "Think and call.")
    session.cue(context)
    chunks = list(
        session.generate(GenerateRequest(context=context, sampler=SEEDED, decode=decode, max_tokens=80, stop=NEVER))
    )
    decoder = session.create_decoder(decode)
    events = [event for chunk in chunks for event in session.decoder_feed(decoder, chunk.tokens)]
    events += session.decoder_finish(decoder)
    assert events == [event for chunk in chunks for event in chunk.events]
    assert session.decoder_finish(decoder) == [Done("")]
    session.release_decoder(decoder)
    with pytest.raises(NotFound):
        session.decoder_feed(decoder, [97])


def test_a_tool_matcher_forces_a_call_that_the_decoder_reads(session):
    parameters = {"type": "object", "properties": {"kg": {"type": "integer", "maximum": 9}}, "required": ["kg"]}
    tool = json.dumps({"name": "weigh", "parameters": parameters})
    context = session.create_context()
    session.equip_tools(context, [tool])
    session.user(context, "How heavy?")
    session.cue(context)
    matcher = session.create_tool_matcher([tool]).result(20)
    request = GenerateRequest(
        context=context, matcher=matcher, sampler=Sampler(seed=4), decode=Decode(tool_use=True), max_tokens=400
    )
    chunks = list(session.generate(request))
    events = [event for chunk in chunks for event in chunk.events]
    assert chunks[-1].finish is FinishReason.STOP
    (call,) = [event for event in events if isinstance(event, ToolCall)]
    assert call.name == "weigh" and set(json.loads(call.arguments)) == {"kg"}


def test_ids_beyond_the_vocabulary_are_refused_by_name(session):
    size = session.model.vocab_size
    context = text_context(session, PROMPT)
    for name, request in {
        "stop.tokens": {"stop": Stop(tokens=(size,))},
        "penalties.bias": {"penalties": Penalties(bias=((size, 1.0),))},
        "logit_mask": {"logit_mask": (size,)},
    }.items():
        with pytest.raises(BadRequest) as refused:
            session.generate(GenerateRequest(context=context, **request))
        assert refused.value.field == name
    with pytest.raises(NotFound):
        session.generate(GenerateRequest(context=context, adapter=99))


def test_a_grammar_that_is_whole_at_max_tokens_has_stopped(session):
    context = text_context(session, PROMPT)
    grammar = GrammarSpec("regex", "abc")
    request = GenerateRequest(context=context, sampler=GREEDY, max_tokens=3, grammar=grammar)
    assert list(session.generate(request))[-1].finish is FinishReason.STOP
    cut = GenerateRequest(context=text_context(session, PROMPT), sampler=GREEDY, max_tokens=2, grammar=grammar)
    assert list(session.generate(cut))[-1].finish is FinishReason.LENGTH


def test_a_noise_seed_without_noise_and_a_path_that_is_none_are_refused(session):
    context = text_context(session, PROMPT)
    with pytest.raises(BadRequest, match="zo_seed: a seed perturbs an adapter's weights"):
        GenerateRequest(context=context, zo_seed=3)
    adapter = session.create_adapter("silent").result()
    for path in (5, "", "a\0b"):
        with pytest.raises(BadRequest, match="path: must be the path of a folder"):
            session.load_adapter(adapter, path)
    with pytest.raises(BadRequest, match="not initialised for zo"):
        session.generate(GenerateRequest(context=context, adapter=adapter, zo_seed=3))
    session.remove_adapter(adapter).result()
