"""A program that does what its input says, so that one build serves many tests."""

ACTOR = """
import json
import sys
import time

from inferlet import Context, Model, Sampler, mcp, messaging, runtime, session


def main(input: dict):
    return globals()["do_" + input.get("do", "nothing")](input)


def do_nothing(input):
    return None


def do_say(input):
    for message in input["messages"]:
        session.send(message)
    return "said"


def do_flood(input):
    for number in range(input["count"]):
        session.send(f"{number} " + "x" * input["size"])
    return {"count": input["count"]}


def do_print(input):
    print("to stdout")
    print("to stderr", file=sys.stderr)
    return {"printed": 2}


def do_echo(input):
    while (text := session.receive()) != "stop":
        session.send(f"heard {text}")
    return "stopped"


def do_files(input):
    session.send("before")
    session.send_file(b"\\x89PNG\\r\\n\\x1a\\n" + bytes(input["size"]))
    session.send("after")


def do_many_files(input):
    for _ in range(input["count"]):
        session.send_file(bytes(input["size"]))


def do_file_size(input):
    return {"size": len(session.receive_file())}


def do_who(input):
    return {"username": runtime.username(), "instance": runtime.instance_id(), "models": runtime.models()}


def do_generate(input):
    with Context(Model.load(runtime.models()[0])) as context:
        context.user("a word")
        return context.generate_text(Sampler.greedy(), max_tokens=4)


def do_fail(input):
    raise ValueError("the oven is cold")


def do_loop(input):
    session.send("looping")
    while True:
        pass


def do_fill(input):
    session.send("filling")
    kept = []
    while True:
        kept.append(bytearray(1 << 20))


def do_push(input):
    messaging.push("orders", input["text"])


def do_pull(input):
    return messaging.pull("orders")


def do_tool(input):
    with mcp.connect(mcp.available_servers()[0]) as tools:
        return tools.call_tool("add", json.dumps({"a": 2, "b": 3}))[0].text


def do_spawn(input):
    return runtime.spawn(input["program"], [json.dumps(input["input"])])
"""
