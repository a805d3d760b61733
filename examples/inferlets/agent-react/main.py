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


def choices(step: int, steps: int, tools: list[dict]) -> list[dict]:
    """What may be done: look something up first, answer at the latest in the last step."""
    actions = [action_of(tool) for tool in tools]
    if step == steps - 1:
        return [ANSWER]
    return actions if step == 0 else [ANSWER, *actions]


def main(input: dict) -> dict:
    model = Model.load(runtime.models()[0])
    steps, trace = input.get("steps", 4), list[dict]()
    with mcp.connect(input.get("server") or mcp.available_servers()[0]) as server, Context(model) as ctx:
        tools = json.loads(server.list_tools())["tools"]
        told = "\n".join(f"{tool['name']}: {tool.get('description', '')}" for tool in tools)
        ctx.system(f"Think, then act. Actions are JSON objects. Tools:\n{told}\nanswer: ends the work.")
        ctx.user(input.get("question", "How much flour do 3 loaves need?"))
        for step in range(steps):
            ctx.cue()
            ctx.fill("Thought: ")
            thought = ctx.generate_text(Sampler.top_p(), max_tokens=32, stop=["\n"], auto_flush=False)
            ctx.fill("\nAction: ")
            schema = {"anyOf": choices(step, steps, tools)}
            matcher = Matcher(Grammar.from_json_schema(json.dumps(schema)), model.tokenizer())
            action = json.loads(ctx.generate_text(Sampler.top_p(), logit_mask=matcher, auto_flush=False))
            ctx.seal()
            trace.append({"thought": thought, **action})
            if action["action"] != "answer":
                found = server.call_tool(action["action"], json.dumps(action["arguments"]))
                trace[-1]["observation"] = found.text
                ctx.user(f"Observation: {found.text}")
            session.send(json.dumps(trace[-1]))
            if action["action"] == "answer":
                break
    return {"answer": trace[-1]["arguments"]["text"], "trace": trace}
