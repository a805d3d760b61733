"""What a program can import, with what arguments; that it needs nothing else, and that both surfaces are one."""

from __future__ import annotations

import ast
import inspect
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import inferlet
import pytest
from inferlet import aio
from inferlet.errors import NotConnected

SDK = Path(inferlet.__file__).parents[2]
ASK = "sampler, *, max_tokens=None, logit_mask=None"

SIGNATURES = {
    "Model.load": "name",
    "Model.tokenizer": "self",
    "Tokenizer.encode": "self, text",
    "Tokenizer.decode": "self, ids",
    "Tokenizer.vocabs": "self",
    "Tokenizer.special_tokens": "self",
    "Tokenizer.split_regex": "self",
    "Context": "model, name=None, fill=None",
    "Context.lookup": "model, name",
    "Context.system": "self, message",
    "Context.user": "self, message",
    "Context.assistant": "self, message",
    "Context.cue": "self",
    "Context.seal": "self",
    "Context.fill": "self, text",
    "Context.fill_tokens": "self, ids",
    "Context.fork": "self, name=None",
    "Context.release": "self",
    "Context.flush": "self",
    "Context.stop_tokens": "self",
    "Context.equip_tools": "self, tools",
    "Context.answer_tool": "self, name, value",
    "Context.generate": f"self, {ASK}, decode=False, reasoning=False, tool_use=False, auto_flush=True, **options",
    "Context.generate_text": f"self, {ASK}, auto_flush=True, **options",
    "TokenStream.text": "self",
    "TokenStream.tokens": "self",
    "TokenStream.collect_text": "self",
    "TokenStream.collect_tokens": "self",
    "Sampler.greedy": "",
    "Sampler.top_p": "temperature=0.6, top_p=0.95, *, seed=0",
    "Sampler.top_k": "temperature=0.6, top_k=50, *, seed=0",
    "Sampler.min_p": "temperature=0.6, min_p=0.1, *, seed=0",
    "Sampler.multinomial": "temperature=1.0, seed=0",
    "Sampler.top_k_top_p": "temperature=0.6, top_k=50, top_p=0.95, *, seed=0",
    "Sampler.embedding": "",
    "Sampler.dist": "temperature=1.0, seed=0",
    "Event.Text": "text",
    "Event.Thinking": "text",
    "Event.ThinkingDone": "text",
    "Event.ToolCallStart": "",
    "Event.ToolCall": "name, arguments",
    "Event.Done": "text",
    "Decoder": "model, *, reasoning=False, tool_use=False",
    "Decoder.feed": "self, ids",
    "Decoder.reset": "self",
    "ForwardPass": "model",
    "ForwardPass.context": "self, context",
    "ForwardPass.input_tokens": "self, tokens, positions=None",
    "ForwardPass.speculative_tokens": "self, tokens, positions=None",
    "ForwardPass.enable_speculative_output": "self, flag=True",
    "ForwardPass.attention_mask": "self, masks",
    "ForwardPass.logit_mask": "self, mask",
    "ForwardPass.sampler": "self, indices, sampler",
    "ForwardPass.adapter": "self, adapter",
    "ForwardPass.execute": "self",
    "Grammar.from_json_schema": "schema",
    "Grammar.json": "",
    "Grammar.from_regex": "pattern",
    "Grammar.from_ebnf": "text",
    "Matcher": "grammar, tokenizer",
    "Matcher.next_token_logit_mask": "self",
    "Matcher.accept_tokens": "self, ids",
    "Matcher.reset": "self",
    "Adapter.create": "model, name",
    "Adapter.lookup": "model, name",
    "Adapter.clone": "self, name",
    "Adapter.acquire_lock": "self",
    "Adapter.release_lock": "self",
    "Adapter.load": "self, path",
    "Adapter.save": "self, path",
    "session.send": "text",
    "session.receive": "",
    "session.send_file": "data",
    "session.receive_file": "",
    "runtime.version": "",
    "runtime.models": "",
    "runtime.username": "",
    "runtime.instance_id": "",
    "runtime.limits": "",
    "runtime.spawn": "package, args=None",
    "messaging.push": "topic, message",
    "messaging.pull": "topic",
    "messaging.broadcast": "topic, message",
    "messaging.subscribe": "topic",
    "mcp.available_servers": "",
    "mcp.connect": "name",
    "mcp.McpSession.list_tools": "self",
    "mcp.McpSession.call_tool": "self, name, args_json='{}'",
    "mcp.McpSession.list_resources": "self",
    "mcp.McpSession.read_resource": "self, uri",
    "mcp.McpSession.list_prompts": "self",
    "mcp.McpSession.get_prompt": "self, name, args_json='{}'",
    "zo.initialize": "adapter, rank, alpha, population_size, mu_fraction, initial_sigma",
    "zo.update": "adapter, scores, seeds, max_sigma=0.0",
    "zo.adapter_seed": "forward_pass, seed",
}


@pytest.mark.parametrize("surface", [inferlet, aio], ids=["sync", "aio"])
def test_the_names_and_their_arguments(surface: Any) -> None:
    wrong = {name: shown for name, told in SIGNATURES.items() if (shown := shape(surface, name)) != told}
    assert not wrong


def shape(surface: Any, name: str) -> str:
    found = surface
    for part in name.split("."):
        found = getattr(found, part)
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in inspect.signature(found).parameters.values()
    ]
    return str(inspect.Signature(parameters))[1:-1]


def test_both_surfaces_have_the_same_names() -> None:
    assert aio.__all__ == inferlet.__all__
    assert all(hasattr(surface, name) for surface in (inferlet, aio) for name in inferlet.__all__)


def test_what_waits_is_awaited_on_one_surface_only() -> None:
    waits = {name for name in SIGNATURES if "." in name and inspect.iscoroutinefunction(_found(aio, name))}
    assert not {name for name in SIGNATURES if inspect.iscoroutinefunction(_found(inferlet, name))}
    assert waits >= {"Context.flush", "Context.generate_text", "TokenStream.text", "ForwardPass.execute"}
    assert waits >= {"Adapter.create", "Adapter.acquire_lock", "session.receive", "runtime.spawn", "messaging.pull"}
    assert not waits & {"Context.generate", "Context.fork", "Model.load", "Tokenizer.encode", "session.send"}


def _found(surface: Any, name: str) -> Any:
    for part in name.split("."):
        surface = getattr(surface, part)
    return surface


def test_the_synchronous_modules_are_what_the_script_writes() -> None:
    script = runpy.run_path(str(SDK / "scripts" / "unasync.py"))
    assert script["main"](check=True) == 0


def test_the_script_keeps_texts_and_leaves_out_what_is_marked() -> None:
    synchronous = runpy.run_path(str(SDK / "scripts" / "unasync.py"))["synchronous"]
    source = (
        "from inferlet.aio.zo import b\nfrom inferlet._waits import a\n\n\n"
        'async def f(x):\n    """await and async for stay in texts."""\n    async with x as y:\n'
        "        return [await z async for z in y]\n\n    # unasync: leave out\n    never\n\n    # unasync: go on\n"
    )
    assert synchronous(source) == (
        "from inferlet._waits import a\nfrom inferlet.zo import b\n\n\n"
        'def f(x):\n    """await and async for stay in texts."""\n    with x as y:\n        return [z for z in y]\n'
    )


def test_its_syntax_is_that_of_the_oldest_python_it_is_for() -> None:
    for path in (SDK / "src").rglob("*.py"):
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 10))


def test_it_imports_without_anything_else() -> None:
    code = f"import sys; sys.path.insert(0, {str(SDK / 'src')!r}); import inferlet, inferlet.aio; print('fine')"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "fine\n"


def test_without_a_host_a_program_is_told_how_to_have_one() -> None:
    with pytest.raises(NotConnected, match=r"bakery build.*pie run --native.*inferlet\.connect"):
        inferlet.Model.load("dummy")
    assert inferlet.Grammar.from_regex("a+").source == "a+"


def test_what_is_no_host_is_refused() -> None:
    with pytest.raises(TypeError, match="it lacks adapters, client, contexts"):
        inferlet.connect(object())  # type: ignore[arg-type]
