"""Runs one block of document 5 as a program: natively as it stands here, or built and in the sandbox.

Its input: ``block`` (a name), ``source``, ``literals`` (string literals and what replaces them), ``names`` (those that
the block leaves open). Its result: what the block left behind, as far as JSON can say it.
"""

import ast
import json

import inferlet
from inferlet import Context, Model, runtime

TOOLS = [
    json.dumps({"name": name, "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}})
    for name in ("get_weather", "get_time")
]


def bindings(names: list[str]) -> dict[str, object]:
    model = Model.load(runtime.models()[0])
    ctx = Context(model)
    ctx.user("Hello")
    known = {name: getattr(inferlet, name) for name in inferlet.__all__}
    known |= {"model": model, "ctx": ctx, "data": b"\x00\xff" * 8, "args": ["{}"]}
    known |= {"tool_schema_json_1": TOOLS[0], "tool_schema_json_2": TOOLS[1]}
    return {name: known[name] for name in names}


class Replace(ast.NodeTransformer):
    def __init__(self, literals: dict[str, str]) -> None:
        self.literals = literals

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        if isinstance(node.value, str) and node.value in self.literals:
            return ast.copy_location(ast.Constant(self.literals[node.value]), node)
        return node


def said(value: object) -> object:
    """*value*, where JSON has it; a mask as its runs, anything else as the name of its type."""
    if isinstance(value, inferlet.Mask):
        return list(value)
    if isinstance(value, bytes):
        return value.hex()
    try:
        json.dumps(value)
    except TypeError:
        return type(value).__name__
    return value


def main(input: dict) -> dict:
    if not input:  # the child of a block that spawns one
        return {"spawned": True}
    names = bindings(input["names"])
    tree = Replace(input["literals"]).visit(ast.parse(input["source"]))
    names["__name__"] = "document"
    exec(compile(ast.fix_missing_locations(tree), input["block"], "exec"), names)
    ctx = names.get("ctx")
    if isinstance(ctx, Context) and "ctx.release()" not in input["source"]:
        names["buffer"] = ctx.model.tokenizer().decode(ctx.buffered_tokens)
    return {name: said(value) for name, value in names.items() if not name.startswith("__")}
