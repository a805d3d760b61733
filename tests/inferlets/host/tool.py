"""A program that does what its first argument says."""

import contextlib
import json
import time

from inferlet import Context, Model, messaging, runtime, session
from inferlet._host import host
from inferlet.errors import HostError


def main(args):
    what, *rest = args
    return globals()[f"do_{what}"](*rest)


def do_echo(*words: str) -> str:
    return " ".join(words)


def do_raise(text: str) -> str:
    raise ValueError(text)


def do_print(*lines: str) -> str:
    for line in lines:
        print(line)
    return ""


def do_receive(count: str = "1") -> str:
    session.send("ready")
    return " ".join(session.receive() for _ in range(int(count)))


def do_repeat() -> str:
    while (text := session.receive()) != "stop":
        session.send(text)
    return "stopped"


def do_file() -> str:
    data = session.receive_file()
    session.send_file(data[::-1])
    return str(len(data))


def do_spin() -> str:
    session.send("ready")
    while True:
        pass


def do_sleep(seconds: str) -> str:
    time.sleep(float(seconds))
    return "awake"


def do_context() -> str:
    """Hold a context, a topic's place and wait."""
    ctx = Context(Model.load(runtime.models()[0]))
    ctx.user("Hello")
    ctx.flush()
    session.send("ready")
    messaging.pull("never")
    return ""


def do_spawn(program: str, *args: str) -> str:
    return "child: " + runtime.spawn(program, list(args))


def do_again(program: str, *args: str) -> str:
    """Spawn one child after the other, whatever becomes of them."""
    while True:
        with contextlib.suppress(HostError):
            runtime.spawn(program, list(args))


def do_deeper(program: str) -> str:
    """Spawn itself until that is refused."""
    try:
        return runtime.spawn(program, ["deeper", program])
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def do_push(topic: str, *messages: str) -> str:
    for message in messages:
        messaging.push(topic, message)
    return ""


def do_pull(topic: str) -> str:
    session.send("pulling")
    return messaging.pull(topic)


def do_bomb(program: str) -> str:
    """Start as many of itself as possible, and never end."""
    for _ in range(60):
        with contextlib.suppress(HostError):
            host().runtime.spawn(program, json.dumps(["bomb", program]))
    return session.receive()


def do_flood(text: str) -> str:
    """Fill queues under many names until nothing more is taken."""
    taken = refused = 0
    while refused < 100:
        try:
            messaging.push(f"t{(taken + refused) % 50}", text)
            taken, refused = taken + 1, 0
        except HostError:
            refused += 1
    return str(taken)


def do_id() -> str:
    return f"{runtime.instance_id()} {runtime.username()}"
