"""The world pie: a program that holds contexts, pages, passes and matchers in its own hands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from bakehouse.engine.handle import Engine
from bakehouse.engine.model import ServedModel
from bakehouse.inferlets.base import Failure
from bakehouse.inferlets.errors import BadProgram
from bakehouse.inferlets.sandbox import Sandbox
from tests.inferlets.sandbox.support import WIT, Runner, build


@pytest.fixture(scope="session")
def pie_wasm() -> Path:
    return build(Path(__file__).parent / "pie_guest.py", WIT / "pie", "pie")


@pytest.fixture
def pie(sandbox: Sandbox, model: ServedModel, pie_wasm: Path) -> Iterator[Runner]:
    """Afterwards the engine holds nothing of theirs."""
    yield Runner(sandbox, sandbox.load(pie_wasm), Engine([model]))
    model.planner.check_integrity()


BY_HAND = """
Model, Context, Pass = model.Model, context.Context, inference.ForwardPass
m = Model.load("tiny")
tok = m.tokenizer()
greedy = inference.Sampler_Multinomial((0.0, 1))

def step(ctx, **more):
    ids = ctx.buffered_tokens()
    last = ctx.last_position()
    start = 0 if last is None else last + 1
    ctx.reserve_pages((ctx.cursor() + len(ids)) // ctx.tokens_per_page() + 1 - ctx.uncommitted_page_count())
    p = Pass(m)
    p.context(ctx)
    p.input_tokens(ids, list(range(start, start + len(ids))))
    if "mask" in more: p.logit_mask(more["mask"])
    p.sampler([len(ids) - 1], more.get("sampler", greedy))
    found = wait(p.execute())
    full = ctx.cursor() // ctx.tokens_per_page()
    ctx.commit_pages(list(range(full)))
    return found
"""

GREEDY = """
handle = models.load("tiny")
ctx = contexts.create(handle, None)
contexts.say(ctx, "user", "count to a hundred, slowly")
contexts.cue(ctx)
request = {"sampler": {"kind": "multinomial", "temperature": 0.0}, "max_tokens": 40, "whole": True}
result = json.dumps(json.loads(waits.take(passes.generate(ctx, json.dumps(request))))["tokens"])
"""


def test_passes_by_hand_give_what_a_generation_gives(pie: Runner, guests: Runner) -> None:
    expected = json.loads(guests.run(GREEDY).result)
    code = f"""{BY_HAND}
ctx = Context.create(m, "", None)
chat.user(ctx, "count to a hundred, slowly")
chat.cue(ctx)
got = []
while len(got) < {len(expected)}:
    found = step(ctx)
    assert isinstance(found, inference.Output_Tokens), found
    got += found.value
    ctx.append_buffered_tokens(found.value)
result = json.dumps([got, ctx.committed_page_count() > 0, ctx.buffered_tokens()])
"""
    got, committed, buffered = json.loads(pie.run(code).result)
    assert (got, committed, buffered) == (expected, True, expected[-1:])


def test_a_matcher_by_hand(pie: Runner) -> None:
    code = f"""{BY_HAND}
schema = {{"type": "object", "properties": {{"n": {{"enum": [1, 22]}}}}, "required": ["n"]}}
g = inference.Grammar.from_json_schema(json.dumps(schema))
matcher = inference.Matcher(g, tok)
ctx = Context.create(m, "", tok.encode("give me a number: "))
stops, ids = set(chat.stop_tokens(m)), []
for _ in range(60):
    token = step(ctx, mask=matcher.next_token_logit_mask()).value[0]
    matcher.accept_tokens([token])
    if token in stops: break
    ids.append(token)
    ctx.append_buffered_tokens([token])
result = json.dumps([tok.decode(ids), matcher.is_terminated()])
try: matcher.accept_tokens(tok.encode("x"))
except Err as error: result += "|" + error.value
matcher.reset()
assert not matcher.is_terminated()
"""
    answer, refusal = pie.run(code).result.split("|")
    text, terminated = json.loads(answer)
    assert json.loads(text) in ({"n": 1}, {"n": 22})
    assert terminated
    assert refusal


def test_what_is_no_grammar_is_said_where_it_is_made(pie: Runner) -> None:
    code = """
codes = []
for make, text in (
    (inference.Grammar.from_regex, "("), (inference.Grammar.from_ebnf, "nothing"),
    (inference.Grammar.from_json_schema, "{"),
):
    try: make(text)
    except Err as error: codes.append(bool(error.value))
result = codes, isinstance(inference.Grammar.json(), inference.Grammar)
"""
    assert pie.run(code).result == "([True, True, True], True)"


def test_distributions_and_embeddings(pie: Runner) -> None:
    code = f"""{BY_HAND}
def one(sampler):
    p = Pass(m)
    p.input_tokens(tok.encode("abc"), [0, 1, 2])
    p.sampler([0, 2], sampler)
    return wait(p.execute())
dist, few = one(inference.Sampler_Dist((1.0, 0))), one(inference.Sampler_Dist((1.0, 5)))
emb = one(inference.Sampler_Embedding())
sums = [round(sum(probs), 3) for ids, probs in dist.value]
p = Pass(m)
p.input_tokens(tok.encode("a"), [0])
result = json.dumps([
    type(dist).__name__, sums, [len(ids) for ids, _ in few.value], len(dist.value[0][0]) > 256,
    type(emb).__name__, [len(each) % 4 for each in emb.value], type(wait(p.execute())).__name__,
])
"""
    assert json.loads(pie.run(code).result) == [
        "Output_Distributions",
        [1.0, 1.0],
        [5, 5],
        True,
        "Output_Embeddings",
        [0, 0],
        "Output_None_",
    ]


def test_drafts_and_attention_masks(pie: Runner) -> None:
    code = f"""{BY_HAND}
ids = tok.encode("the same and the same and")
def one(drafts, mask=None):
    ctx = Context.create(m, "", None)
    p = Pass(m)
    p.context(ctx)
    p.input_tokens(ids, list(range(len(ids))))
    if drafts: p.input_speculative_tokens(drafts, list(range(len(ids), len(ids) + len(drafts))))
    if mask: p.attention_mask(mask)
    p.output_speculative_tokens(False)
    p.sampler([len(ids) - 1], greedy)
    return wait(p.execute())
first = one([]).value
drafted = one([first[0], 1, 2])
causal = [[0, at + 1] for at in range(len(ids))]
result = first[0], type(drafted).__name__, drafted.value[0][0], one([], causal).value[0]
"""
    first, kind, accepted, causal = eval(pie.run(code).result)
    assert kind == "Output_TokensWithSpeculation"
    assert first == accepted == causal


def test_tokenizers(pie: Runner) -> None:
    code = """
tok = model.Model.load("tiny").tokenizer()
ids, texts = tok.vocabs()
some, names = tok.special_tokens()
text = "grüße 🍞"
result = [tok.decode(tok.encode(text)) == text, tok.encode(""), len(ids) == len(texts), set(some) <= set(ids)]
result += [dict(zip(ids, texts))[tok.encode("a")[0]], isinstance(tok.split_regex(), str), len(some) == len(names)]
"""
    assert pie.run(code).result == str([True, [], True, True, b"a", True, True])


def test_names_lookups_and_forks(pie: Runner) -> None:
    make = """
m = model.Model.load("tiny")
ctx = context.Context.create(m, "pie-kept", [1, 2, 3])
other = ctx.fork("")
other.append_buffered_tokens([4])
result = ctx.buffered_tokens(), other.buffered_tokens(), context.Context.lookup(m, "none") is None
"""
    find = """
m = model.Model.load("tiny")
ctx = context.Context.lookup(m, "pie-kept")
result = ctx.buffered_tokens(), isinstance(ctx.model(), model.Model)
ctx.destroy()
try: ctx.fork("")
except Err as error: result += (bool(error.value), context.Context.lookup(m, "pie-kept") is None)
"""
    assert pie.run(make).result == "([1, 2, 3], [1, 2, 3, 4], True)"
    assert pie.run(find).result == "([1, 2, 3], True, True, True)"


def test_the_lock_of_a_context_ends_with_its_holder(pie: Runner) -> None:
    open_it = """
m, Context = model.Model.load("tiny"), context.Context
ctx = Context.lookup(m, "locked") or Context.create(m, "locked", None)
"""
    hold = open_it + "session.send(str(wait(ctx.acquire_lock())))\nwait(session.receive())"
    with pie.running(hold) as holder:
        while not holder.seen.messages:
            assert holder.guest.failure is None
        assert holder.seen.messages == ["True"]
        take = (
            open_it
            + "result = wait(ctx.acquire_lock())\ntry: ctx.release_lock()\nexcept Err as error: result = error.value"
        )
        assert "not held" in pie.run(take).result
        holder.guest.end(Failure("cancelled", "enough"))
    free = open_it + "result = wait(ctx.acquire_lock()), ctx.release_lock()\nctx.destroy()"
    assert pie.run(free).result == "(True, None)"


def test_decoders(pie: Runner) -> None:
    code = """
m = model.Model.load("tiny")
tok, stop = m.tokenizer(), chat.stop_tokens(m)[0]
text = "<think>hm</think>ok <tool_call>{\\"name\\": \\"add\\", \\"arguments\\": {\\"a\\": 1}}</tool_call>"
def events(decoder):
    return [decoder.feed([token]) for token in [*tok.encode(text), stop]] + [decoder.feed([])]
def names(found):
    return [type(each).__name__ for each in found]
said, thought, called = (events(each.create_decoder(m)) for each in (chat, reasoning, tool_use))
result = json.dumps({
    "done": [each.value for each in said if isinstance(each, chat.Event_Done)],
    "text": "".join(each.value for each in said if isinstance(each, chat.Event_Delta)),
    "thought": [each.value for each in thought if isinstance(each, reasoning.Event_Complete)],
    "starts": [names(thought).count("Event_Start"), names(called).count("Event_Start")],
    "calls": [each.value for each in called if isinstance(each, tool_use.Event_Call)],
    "last": [names(said)[-1], names(thought)[-1], names(called)[-1]],
})
"""
    found = json.loads(pie.run(code).result)
    assert found["done"] == [found["text"]]
    assert found["thought"] == ["hm"]
    assert found["starts"] == [1, 1]
    name, arguments = found["calls"][0]
    assert (name, json.loads(arguments)) == ("add", {"a": 1})
    assert found["last"] == ["Event_Delta", "Event_Delta", "Event_Idle"]


def test_tools_and_turns(pie: Runner) -> None:
    code = """
m = model.Model.load("tiny")
ctx = context.Context.create(m, "", None)
tool = json.dumps({"name": "add", "parameters": {"type": "object"}})
chat.system(ctx, "be kind")
tool_use.equip(ctx, [tool])
chat.user(ctx, "hello")
chat.assistant(ctx, "hi")
tool_use.answer(ctx, "add", "3")
chat.cue(ctx)
chat.seal(ctx)
text = m.tokenizer().decode(ctx.buffered_tokens())
matcher = tool_use.create_matcher(m, [tool])
result = [word in text for word in ("be kind", "add", "hello", "hi", "3")], len(matcher.next_token_logit_mask()) > 0
"""
    assert pie.run(code).result == "([True, True, True, True, True], True)"


def test_messages(pie: Runner) -> None:
    code = """
messaging.push("jobs", "one"); messaging.push("jobs", "two")
sub = messaging.subscribe("news")
assert sub.get() is None
messaging.broadcast("news", "a"); messaging.broadcast("news", "b")
heard = []
while len(heard) < 2:
    with sub.pollable() as ready: ready.block()
    heard.append(sub.get())
sub.unsubscribe()
late, soon = messaging.pull("empty"), messaging.pull("jobs")
first = wait(soon)
again = messaging.pull("jobs")
with late.pollable() as one, again.pollable() as other:
    places = poll.poll([one, other])
session.send("hello"); session.send_file(bytes(range(256)))
result = first, heard, sub.get(), places, late.get(), soon.get()
"""
    ran = pie.run(code)
    assert ran.result == "('one', ['a', 'b'], None, [1], None, 'one')"
    assert ran.seen.messages == ["hello"]
    assert ran.seen.files == [bytes(range(256))]


def test_the_client_is_heard(pie: Runner) -> None:
    code = "result = wait(session.receive()), wait(session.receive_file())"
    with pie.running(code) as started:
        started.guest.deliver("grüße")
        started.guest.deliver_file(b"\x00\xff")
        assert started.wait(10).result == "('grüße', b'\\x00\\xff')"


def test_the_runtime(pie: Runner) -> None:
    code = """
result = [runtime.models(), runtime.username(), bool(runtime.version()), bool(runtime.instance_id())]
result.append(client.available_servers())
try: client.connect("none")
except Err as error: result.append(error.value.code)
try: model.Model.load("none")
except Err as error: result.append("none" in error.value)
"""
    assert pie.run(code).result == str([["tiny"], "ada", True, True, [], -1, True])


def test_what_cannot_be_said_ends_the_program(pie: Runner) -> None:
    ran = pie.run("wait(runtime.spawn('none@1.0.0', []))")
    assert ran.outcome.failure is not None
    assert ran.outcome.failure.code in ("spawn_failed", "program_error")
    ran = pie.run(
        "m = model.Model.load('tiny')\nctx = context.Context.create(m, '', None)\nctx.destroy()\nctx.cursor()"
    )
    assert ran.outcome.failure is not None
    assert ran.outcome.failure.code == "not_found"


def test_adapters_and_training(pie: Runner) -> None:
    code = f"""{BY_HAND}
a = adapter.Adapter.create(m, "pie")
assert wait(a.acquire_lock())
zo.initialize(a, 4, 8.0, 4, 0.5, 0.01)
p = Pass(m)
def tokens(seed):
    p.adapter(a)
    zo.adapter_seed(p, seed)
    p.input_tokens(tok.encode("abc"), [0, 1, 2])
    p.sampler([2], greedy)
    return wait(p.execute()).value
same = tokens(5) == tokens(5)
zo.update(a, [0.0, 1.0, 2.0, 3.0], [11, -12, 13, 1 << 40], 0.0)
copy = a.clone("pie-copy")
a.release_lock()
found = adapter.Adapter.lookup(m, "pie-copy") is not None, adapter.Adapter.lookup(m, "none") is None
try: zo.update(a, [1.0], [1], 0.0)
except Err as error: refused = bool(error.value)
copy.destroy(); a.destroy()
result = same, found, refused
"""
    assert pie.run(code).result == "(True, (True, True), True)"


def test_too_many_handles(pie: Runner) -> None:
    ran = pie.run("kept = [inference.Grammar.json() for _ in range(1000)]", waits=100)
    assert ran.limit == "waits"
    let_go = "for _ in range(1000): inference.Grammar.json().__exit__(None, None, None)\nresult = 1"
    assert pie.run(let_go, waits=100).result == "1"


def test_another_world_than_ours_is_refused(sandbox: Sandbox, tmp_path: Path) -> None:
    from tests.inferlets.sandbox.test_cache import importing_function

    wrong = importing_function("pie:core/runtime@0.2.0", "version", "(result u32)")
    with pytest.raises(BadProgram, match=r"pie:core/runtime@0\.2\.0#version as \(\) -> u32; here it is \(\) -> string"):
        sandbox.compile(wrong)


def test_what_a_pass_was_told_has_room_until_it_runs(pie: Runner) -> None:
    once = "numbers = [1] * 10000\np = Pass(m)\np.input_tokens(numbers, numbers)\n"
    fine = BY_HAND + f"for _ in range(100):\n    {once.replace(chr(10), chr(10) + '    ')}p = None\nresult = 'fine'"
    assert pie.run(fine, memory=48 << 20).result == "fine"
    bomb = BY_HAND + once + "while True:\n    p.input_tokens(numbers, numbers)\n"
    assert pie.run(bomb, memory=48 << 20).limit == "memory"
    masks = BY_HAND + once + "kept = []\nwhile True:\n    kept.append(Pass(m))\n    kept[-1].logit_mask(numbers)\n"
    assert pie.run(masks, memory=48 << 20).limit == "memory"


def test_results_have_room_as_long_as_their_futures(pie: Runner) -> None:
    dist = (
        BY_HAND
        + """
kept = []
for number in range(int(arguments[0])):
    p = Pass(m)
    p.input_tokens([1], [0])
    p.sampler([0], inference.Sampler_Dist((1.0, 0)))
    future = p.execute()
    wait(future)
    if arguments[1] == "keep": kept.append(future)
    future = None
result = "done"
"""
    )
    assert pie.run(dist, "200", "let go", memory=48 << 20).result == "done"
    ran = pie.run(dist, "20000", "keep", memory=48 << 20)
    assert ran.limit == "memory"


def test_the_program_of_the_page(pie: Runner) -> None:
    page = (Path(__file__).parents[3] / "docs" / "inferlet-sandbox.md").read_text(encoding="utf-8")
    program = page.split("```python file=app.py\n")[1].split("```")[0]
    assert len(pie.run(f"{program}\nresult = Run().run(['tiny'])").result) > 0
