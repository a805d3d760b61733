"""An agent that reasons and acts: a thought, a call of a tool, what the tool said, and again until it has an answer.

The tools are those of an MCP server. A grammar made of their own schemas holds each action to a call that exists, with
arguments that fit, so nothing the model says has to be repaired.
"""

import json

from inferlet import Context, Grammar, Matcher, Model, Sampler, mcp, runtime, session

ANSWER = {
    "type": "object",
    "properties": {
        "action": {"const": "answer"},
        "arguments": {
            "type": "object",
            "properties": {"text": {"type": "string", "maxLength": 200}},
            "required": ["text"],
        },
    },
    "required": ["action", "arguments"],
}


def action_of(tool: dict) -> dict:
    """The schema of a call of *tool*."""
    return {
        "type": "object",
        "properties": {"action": {"const": tool["name"]}, "arguments": tool["inputSchema"]},
        "required": ["action", "arguments"],
    }


def main(input: dict) -> dict:
    model = Model.load(runtime.models()[0])
    server = input.get("server") or mcp.available_servers()[0]
    steps, trace = input.get("steps", 4), []
    with mcp.connect(server) as tools, Context(model) as ctx:
        offered = json.loads(tools.list_tools())["tools"]
        told = "\n".join(f"{tool['name']}: {tool.get('description', '')}" for tool in offered)
        ctx.system(f"Think, then act. Actions are JSON objects. Tools:\n{told}\nanswer: ends the work.")
        ctx.user(input.get("question", "How much flour do 3 loaves need?"))
        for step in range(steps):
            ctx.cue()
            ctx.fill("Thought: ")
            thought = ctx.generate_text(Sampler.top_p(), max_tokens=32, stop=["\n"], auto_flush=False)
            ctx.fill("\nAction: ")
            # In the last step there is nothing left to do but to answer.
            choices = [ANSWER] if step == steps - 1 else [ANSWER, *map(action_of, offered)]
            matcher = Matcher(Grammar.from_json_schema(json.dumps({"anyOf": choices})), model.tokenizer())
            action = json.loads(ctx.generate_text(Sampler.top_p(), logit_mask=matcher, auto_flush=False))
            ctx.seal()
            trace.append({"thought": thought, **action})
            session.send(json.dumps(trace[-1]))
            if action["action"] == "answer":
                return {"answer": action["arguments"]["text"], "trace": trace}
            found = tools.call_tool(action["action"], json.dumps(action["arguments"]))
            ctx.user(f"Observation: {found.text}")
    raise RuntimeError("unreachable: the last step can only answer")
