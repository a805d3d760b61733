"""Contexts: names, prompts, forks, pages, and when they are freed."""

from __future__ import annotations

import gc

import pytest
from inferlet import Context, Model, Sampler, runtime
from inferlet.errors import BadRequest, Cancelled, NameTaken, NotFound

from bakehouse.engine.model import ServedModel
from tests.inferlets.sdk.support import Open

GREEDY = Sampler.greedy()


def text_of(context: Context) -> str:
    return context.model.tokenizer().decode(context.buffered_tokens)


def test_turns_are_appended_as_the_model_has_them(ctx: Context) -> None:
    ctx.assistant("Hi.")
    ctx.cue()
    assert text_of(ctx) == (
        "<|im_start|>system\nYou are brief.<|im_end|>\n<|im_start|>user\nHello!<|im_end|>\n"
        "<|im_start|>assistant\nHi.<|im_end|>\n<|im_start|>assistant\n"
    )


def test_text_and_ids_are_appended_as_they_are(model: Model) -> None:
    context = Context(model, fill=[104, 105])
    context.fill(" there")
    context.fill_tokens(iter([33]))
    assert text_of(context) == "hi there!"
    context.seal()
    assert context.buffered_tokens[-1] in context.stop_tokens() == model.stop_tokens
    before = context.buffered_tokens
    context.seal()
    assert context.buffered_tokens == before


def test_flush_leaves_the_last_token(ctx: Context) -> None:
    tokens = ctx.buffered_tokens
    ctx.flush()
    state = ctx.state()
    assert state.buffered == tokens[-1:]
    assert state.last_position == len(tokens) - 2
    assert state.committed_pages * state.page_size + state.cursor == len(tokens) - 1
    assert (ctx.committed_page_count, ctx.cursor, ctx.last_position, ctx.tokens_per_page) == (
        state.committed_pages,
        state.cursor,
        state.last_position,
        4,
    )


def test_the_cursor_the_buffer_and_pages_can_be_set(model: Model) -> None:
    context = Context(model, fill=range(1, 8))
    context.flush()
    assert (context.committed_page_count, context.cursor) == (1, 2)
    context.cursor = 1
    context.buffered_tokens = [9, 8]
    assert (context.cursor, context.buffered_tokens, context.last_position) == (1, [9, 8], 4)
    context.reserve_pages(2)
    context.release_pages(2)
    assert context.cursor == 0
    with pytest.raises(BadRequest):
        context.cursor = 99


def test_a_fork_goes_its_own_way(ctx: Context) -> None:
    ctx.cue()
    ctx.flush()
    child = ctx.fork()
    same = [c.generate(GREEDY, max_tokens=12, auto_flush=False).tokens() for c in (ctx, child, child.fork())]
    assert same[0] == same[1] == same[2]
    child.fill("!")
    assert ctx.state().buffered != child.state().buffered


def test_names_are_found_and_freed(model: Model) -> None:
    with Context(model, name="shelf") as kept:
        kept.fill("bread")
        again = Context.lookup(model, "shelf")
        assert again is not None
        assert text_of(again) == "bread"
        with pytest.raises(NameTaken):
            kept.fork("shelf")
        kept.fork("board").release()
    assert Context.lookup(model, "shelf") is None
    assert Context.lookup(model, "board") is None


def test_a_named_context_outlives_its_program_of_one_owner(native: Open) -> None:
    with native(owner="ada"):
        Context(Model.load("dummy"), name="left").fill("over")
    with native(owner="bob"):
        assert Context.lookup(Model.load("dummy"), "left") is None
    with native(owner="ada"):
        found = Context.lookup(Model.load("dummy"), "left")
        assert found is not None and text_of(found) == "over"
        found.release()


def test_made_up_names_are_of_this_program(ctx: Context, model: Model) -> None:
    assert ctx.name.startswith(f"ctx-{runtime.instance_id()}-")
    assert ctx.name != ctx.fork().name
    assert Context(model, name="mine").name == "mine"
    assert repr(ctx) == f"<Context {ctx.name!r}>"
    Context.lookup(model, "mine").release()  # type: ignore[union-attr]


def test_a_released_context_is_not_found(ctx: Context) -> None:
    stream = ctx.generate(GREEDY, max_tokens=400)
    ctx.release()
    ctx.release()
    with pytest.raises((Cancelled, NotFound)):
        stream.tokens()
    with pytest.raises(NotFound, match="context"):
        ctx.user("Hello?")


def test_an_unnamed_context_goes_with_its_last_reference(model: Model, served: ServedModel) -> None:
    def live() -> int:
        gc.collect()
        return len(served.planner.contexts.contexts)

    before = live()
    context = Context(model, fill=[1])
    fork = context.fork()
    assert live() == before + 2
    context.generate(GREEDY, auto_flush=False, stop_tokens=[])
    del context
    assert live() == before + 1
    named = Context(model, name="stays")
    del named, fork
    assert live() == before + 1
    Context.lookup(model, "stays").release()  # type: ignore[union-attr]
    assert live() == before


def test_tools_are_json_texts(ctx: Context) -> None:
    tool = '{"name": "get_weather", "parameters": {"type": "object"}}'
    ctx.equip_tools([tool])
    ctx.answer_tool("get_weather", '{"temp": 72}')
    assert "get_weather" in text_of(ctx) and "<tool_response>\n{" in text_of(ctx)
    with pytest.raises(TypeError, match="a list of JSON texts"):
        ctx.equip_tools(tool)
    with pytest.raises(TypeError, match=r"json\.dumps"):
        ctx.equip_tools([{"name": "x"}])  # type: ignore[list-item]


def test_ids_that_are_none_are_refused(model: Model) -> None:
    for wrong in ([-1], [2**32], ["a"]):
        with pytest.raises((OverflowError, TypeError)):
            Context(model, fill=wrong)  # type: ignore[arg-type]
    with pytest.raises(BadRequest, match=r"vocabulary|below"):
        Context(model, fill=[model.vocab_size])


def test_an_unknown_model_is_not_found(model: Model) -> None:
    with pytest.raises(NotFound, match="Model 'nope' not found"):
        Model.load("nope")
    assert (model.name, model.family, model.page_size) == ("dummy", "qwen3", 4)
    assert model.max_context > 0 and model.layers > 0 and model.hidden_size > 0 and model.architecture == "dummy"


def test_the_tokenizer(model: Model) -> None:
    tokenizer = model.tokenizer()
    ids = tokenizer.encode("né<|im_end|>")
    assert tokenizer.decode(ids) == "né<|im_end|>" and len(ids) == 4
    assert tokenizer.encode("") == [] and tokenizer.decode([0xC3]) == "�"
    every, pieces = tokenizer.vocabs()
    assert pieces[every.index(ids[-1])] == b"<|im_end|>" and pieces[-1:] == list(pieces)[-1:]
    assert len(every) == len(pieces) and tokenizer.vocabs()[1] is pieces and pieces == list(pieces)
    special, names = tokenizer.special_tokens()
    assert names[special.index(ids[-1])] == b"<|im_end|>" and len(special) < len(every)
    assert tokenizer.split_regex() == ""
    with pytest.raises(IndexError):
        pieces[len(pieces)]
