"""The world pie, function by function: what `test_pie` does not come by, and that nothing of it is left out."""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from bakehouse.inferlets.base import Launch
from bakehouse.inferlets.mcp import ConfiguredMcp, McpServer
from bakehouse.inferlets.sandbox.pie import interfaces
from tests.inferlets.sandbox import test_pie
from tests.inferlets.sandbox.support import Alone, Runner
from tests.inferlets.sandbox.test_pie import BY_HAND, pie, pie_wasm

__all__ = ["pie", "pie_wasm"]

KITCHEN = Path(__file__).parents[1] / "sdk" / "mcp_server.py"


def test_each_function_of_the_world_is_called_here() -> None:
    """By its name, in the text of a program; constructors by that of their class."""
    programs = Path(test_pie.__file__).read_text() + Path(__file__).read_text()
    for interface in interfaces():
        module = interface.name.partition("/")[2].partition("@")[0].replace("-", "_")
        for function in interface.functions:
            kind, _, name = function.rpartition("]")
            called = f"{module}.{name}" if not kind else f".{name.partition('.')[2]}"
            if kind == "[constructor":
                called = "Pass" if name == "forward-pass" else "inference.Matcher"
            assert re.search(rf"{re.escape(called.replace('-', '_'))}\b", programs), (interface.name, function)


def test_cursor_buffer_and_pages_are_the_programs(pie: Runner) -> None:
    code = f"""{BY_HAND}
size = Context.create(m, "", None).tokens_per_page()
ctx = Context.create(m, "", list(range(1, size + 4)))
step(ctx)
seen = [(ctx.committed_page_count(), ctx.cursor(), ctx.last_position(), ctx.buffered_tokens())]
ctx.set_cursor(1)
ctx.set_buffered_tokens([9, 8])
seen.append((ctx.cursor(), ctx.last_position() - size, ctx.buffered_tokens()))
ctx.reserve_pages(3); ctx.reserve_pages(2)
seen.append(ctx.uncommitted_page_count())
ctx.release_pages(2)
seen.append((ctx.uncommitted_page_count(), ctx.cursor()))
try: ctx.commit_pages([0])
except Err as error: seen.append(bool(error.value))
result = json.dumps([size, seen])
"""
    size, seen = json.loads(pie.run(code).result)
    assert seen == [[1, 3, size + 2, []], [1, 0, [9, 8]], 3, [1, 0], True]


def test_what_cannot_be_ends_the_program_where_there_is_no_result(pie: Runner) -> None:
    for wrong in ("ctx.set_cursor(99)", "ctx.release_pages(9)", "ctx.set_buffered_tokens([1 << 30])"):
        ran = pie.run(f"{BY_HAND}\nctx = Context.create(m, '', [1, 2])\n{wrong}")
        assert ran.outcome.failure is not None
        assert ran.outcome.failure.code == "bad_request", wrong


def test_every_sampler_and_the_forms_of_masks(pie: Runner) -> None:
    code = f"""{BY_HAND}
S = inference
kinds = [S.Sampler_Multinomial((1.0, 3)), S.Sampler_TopK((1.0, 5)), S.Sampler_TopP((1.0, 0.5)),
         S.Sampler_MinP((1.0, 0.2)), S.Sampler_TopKTopP((1.0, 5, 0.5)), S.Sampler_TopP((0.0, 1.0))]
a = tok.encode("a")[0]
def one(sampler, mask):
    p = Pass(m)
    p.input_tokens(tok.encode("abc"), [0, 1, 2])
    if mask is not None: p.logit_mask(mask)
    p.sampler([1, 2], sampler)
    return wait(p.execute()).value
result = json.dumps([[len(one(kind, None)) for kind in kinds], [one(kind, [a, 1]) for kind in kinds] == [[a, a]] * 6,
                     one(kinds[0], []) == one(kinds[0], None), one(kinds[0], [0, 9999]) == one(kinds[0], None)])
"""
    assert json.loads(pie.run(code).result) == [[2] * 6, True, True, True]


def test_grammars_of_each_kind(pie: Runner) -> None:
    code = f"""{BY_HAND}
kinds = [inference.Grammar.from_regex("yes|no"), inference.Grammar.from_ebnf('root ::= "yes" | "no"')]
found = []
for kind in kinds:
    matcher = inference.Matcher(kind, tok)
    matcher.accept_tokens(tok.encode("n"))
    runs = matcher.next_token_logit_mask()
    found.append([runs[0] == tok.encode("o")[0], runs[1], matcher.is_terminated()])
result = json.dumps(found)
"""
    assert json.loads(pie.run(code).result) == [[True, 1, False]] * 2


def test_decoders_start_again(pie: Runner) -> None:
    code = """
m = model.Model.load("tiny")
tok = m.tokenizer()
think = tok.encode("<think>")[0]
found = []
said, thought, called = chat.create_decoder(m), reasoning.create_decoder(m), tool_use.create_decoder(m)
said.feed(tok.encode("lost")); said.reset()
found.append(said.feed(tok.encode("kept")).value)
found.append(said.feed(chat.stop_tokens(m)[:1]).value)
thought.feed([think]); thought.reset()
found.append(type(thought.feed(tok.encode("plain"))).__name__)
called.feed(tok.encode("<tool_call>")); called.reset()
found.append(type(called.feed(tok.encode("plain"))).__name__)
result = json.dumps(found)
"""
    assert json.loads(pie.run(code).result) == ["kept", "kept", "Event_Delta", "Event_Idle"]


def test_adapters_go_to_files_and_come_back(pie: Runner, tmp_path: Path) -> None:
    pie.adapters = tmp_path / "adapters"
    code = f"""{BY_HAND}
a = adapter.Adapter.create(m, "pie-file")
zo.initialize(a, 4, 8.0, 4, 0.5, 0.01)
a.save("kept/one"); a.load("kept/one")
try: a.load("../outside")
except Err as error: result = "refused"
a.destroy()
"""
    assert pie.run(code).result == "refused"
    assert any((tmp_path / "adapters").rglob("one*"))


@pytest.fixture
def kitchen(pie: Runner) -> Iterator[None]:
    pie.services.mcp = ConfiguredMcp([McpServer(name="kitchen", command=(sys.executable, str(KITCHEN)))])
    yield
    pie.services.mcp.close()


@pytest.mark.usefixtures("kitchen")
def test_mcp_servers(pie: Runner) -> None:
    code = """
kitchen, found = client.connect("kitchen"), [client.available_servers()]
found.append([tool["name"] for tool in json.loads(kitchen.list_tools())["tools"]])
found.append([part.value for part in kitchen.call_tool("flour", '{"loaves": 3}')])
found.append("recipe://rye" in kitchen.list_resources())
part = kitchen.read_resource("recipe://rye")[0]
found.append([type(part).__name__, part.value.uri, part.value.text, part.value.blob])
found.append([prompt["name"] for prompt in json.loads(kitchen.list_prompts())["prompts"]])
found.append("Ada wants bread." in kitchen.get_prompt("order", '{"guest": "Ada"}'))
for wrong in (lambda: kitchen.get_prompt("none", ""), lambda: kitchen.call_tool("flour", "[]")):
    try: wrong()
    except Err as error: found.append(error.value.code)
result = json.dumps(found)
"""
    assert json.loads(pie.run(code).result) == [
        ["kitchen"],
        ["flour"],
        ["1500 g"],
        True,
        ["Content_EmbeddedResource", "recipe://rye", "sour dough, salt, patience", None],
        ["order"],
        True,
        -32000,
        -32000,
    ]


class Spawning(Alone):
    """Runs a program's first argument in the same sandbox, whatever it is called."""

    def __init__(self, runner: Runner) -> None:
        super().__init__()
        self._runner = runner

    def spawn(self, parent: Launch, program: str, arguments: tuple[str, ...]) -> Future[str]:
        child: Future[str] = Future()
        threading.Thread(target=lambda: child.set_result(self._runner.run(*arguments).result), daemon=True).start()
        return child


def test_a_child_gives_its_result(pie: Runner) -> None:
    pie.services = Spawning(pie)
    code = """
children = [runtime.spawn("child@1.0.0", [f"result = {number} * {number}"]) for number in (2, 3)]
result = [wait(child) for child in children], [child.get() for child in children]
"""
    assert pie.run(code).result == "(['4', '9'], ['4', '9'])"


def test_who_has_the_lock_of_a_context_is_the_only_one_who_changes_it(pie: Runner) -> None:
    hold = """
m = model.Model.load("tiny")
ctx = context.Context.create(m, "theirs", [1, 2])
assert wait(ctx.acquire_lock())
ctx.append_buffered_tokens([3])
session.send("held")
wait(session.receive())
ctx.append_buffered_tokens([4])
ctx.release_lock(); ctx.destroy()
"""
    find = BY_HAND + "ctx = Context.lookup(m, 'theirs')\n"
    with pie.running(hold) as holder:
        while not holder.seen.messages:
            assert holder.guest.failure is None
        looked = find + "fork = ctx.fork('')\nfork.append_buffered_tokens([9])\nresult = fork.buffered_tokens()"
        assert pie.run(looked).result == "[1, 2, 3, 9]"
        for change in ("ctx.append_buffered_tokens([9])", "chat.cue(ctx)", "ctx.destroy()", "step(ctx)"):
            failure = pie.run(find + change).outcome.failure
            assert failure is not None
            assert "locked by another program" in failure.message, change
        holder.guest.deliver("go on")
        assert holder.wait(20).result == ""
