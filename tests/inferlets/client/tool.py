"""A program that does what its arguments say, for the tests of the client protocol."""

import json
import sys

from inferlet import mcp, runtime, session


def main(args):
    verb, *rest = args
    return VERBS[verb](*rest)


def echo(count):
    """Send back what comes, and return the last."""
    text = ""
    for _ in range(int(count)):
        text = session.receive()
        session.send(text)
    return text


def talk(count):
    for number in range(int(count)):
        session.send(str(number))


def talk_when_told(count):
    """The same after a message, and once more after another."""
    session.receive()
    talk(count)
    session.receive()
    return "told"


def show():
    print("to stdout")
    print("to stderr", file=sys.stderr)


def turn_file():
    data = session.receive_file()
    session.send_file(data[::-1])
    return str(len(data))


def fail():
    raise ValueError("as it was told")


def wait():
    session.receive()


def spin():
    while True:
        pass


def ask(server, text):
    with mcp.connect(server) as found:
        return found.call_tool("shout", json.dumps({"text": text}))[0].text


def say(text):
    return text


def spawn(program, *arguments):
    return "child: " + runtime.spawn(program, list(arguments))


def long(count, text):
    return text * int(count)


KNOWN = (echo, talk, talk_when_told, show, turn_file, fail, wait, spin, ask, say, long, spawn)
VERBS = {each.__name__: each for each in KNOWN}
