"""Programs that mean harm, each beside one that does not: theirs is the only one that ends."""

from __future__ import annotations

import re
import threading
import time

import pytest

from bakehouse.inferlets.base import Failure
from tests.inferlets.sandbox.conftest import Neighbour
from tests.inferlets.sandbox.support import Runner

CANCELLED = Failure("cancelled", "somebody gave it up")


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("while True: pass", id="in Python"),
        pytest.param("sum(range(10**12))", id="in C"),
        pytest.param("re.match('(a+)+$', 'a' * 40 + 'b')", id="in the regex engine"),
        pytest.param("while True:\n  try:\n    while True: pass\n  except BaseException: pass", id="catching all"),
    ],
)
def test_an_endless_loop(guests: Runner, neighbour: Neighbour, code: str) -> None:
    with neighbour():
        ran = guests.run(code, cpu=0.3)
    assert ran.limit == "cpu"
    assert "0.3 s" in ran.error


def test_a_memory_bomb(guests: Runner, neighbour: Neighbour) -> None:
    with neighbour():
        ran = guests.run("kept = []\nwhile True: kept.append(bytes(10**6))", memory=64 << 20)
    assert ran.limit == "memory"
    assert str(64 << 20) in ran.error


def test_a_memory_bomb_that_is_caught_harms_nobody(guests: Runner, neighbour: Neighbour) -> None:
    code = """
kept = []
try:
    while True: kept.append(bytes(10**6))
except MemoryError: result = len(kept) < 64
kept = 0
"""
    with neighbour():
        assert guests.run(code, memory=64 << 20).result == "True"


def test_a_parser_that_gives_up_is_no_lack_of_memory(guests: Runner) -> None:
    ran = guests.run("eval('(' * 5000 + ')' * 5000)")
    assert ran.limit is None
    assert "Parser stack overflowed" in ran.error


def test_too_little_memory_to_start(guests: Runner) -> None:
    ran = guests.run("result = 1", memory=1 << 20)
    assert ran.limit == "memory"
    needs = re.fullmatch(r"memory: 1048576 bytes; this program needs (\d+) to start", ran.error)
    assert needs is not None
    assert "needs" in guests.run("result = 1", memory=int(needs[1]) - 1).error
    assert guests.run("result = 1", memory=int(needs[1]) + (12 << 20)).result == "1"
    assert "to start" in ran.error


def test_a_million_contexts(guests: Runner, neighbour: Neighbour) -> None:
    code = "model = models.load('tiny')\nfor _ in range(10**6): contexts.create(model, None)"
    with neighbour():
        ran = guests.run(code, contexts=50)
    assert "limit_exceeded" in ran.error
    assert "context" in ran.error


def test_a_million_waits(guests: Runner, neighbour: Neighbour) -> None:
    with neighbour():
        ran = guests.run("for _ in range(10**6): client.receive()", waits=100)
    assert "limit_exceeded" in ran.error
    assert "wait" in ran.error


def test_a_flood_of_host_calls(guests: Runner, neighbour: Neighbour) -> None:
    with neighbour():
        ran = guests.run("while True: models.names()", calls=2000)
    assert ran.limit == "calls"


def test_a_flood_of_host_calls_within_its_limit_leaves_room(guests: Runner, neighbour: Neighbour) -> None:
    with neighbour():
        assert guests.run("while True: models.names()", cpu=1.0).limit == "cpu"


@pytest.mark.parametrize("call", ["client.send(text)", "messaging.push('t', text)", "messaging.broadcast('t', text)"])
def test_a_giant_message(guests: Runner, neighbour: Neighbour, call: str) -> None:
    with neighbour():
        ran = guests.run(f"text = 'x' * (20 << 20)\n{call}", message=1 << 20)
    assert "limit_exceeded" in ran.error
    assert ran.seen.messages == []


@pytest.mark.parametrize(
    "call",
    [
        "grammars.create_mask('xyz')",
        "grammars.create_mask('\\u0100' * 4)",
        'passes.forward(model, \'{"masks": [[-1]], "tokens": [1]}\')',
        "passes.forward(model, 'no json')",
        "passes.forward(model, '[' * 100000)",
        "passes.generate(10**9, '{}')",
        "decoders.feed(1, 'abc')",
        "contexts.append(7, '')",
        "waits.take(12345)",
        "waits.any('abc', 0.0)",
        "models.load('none')",
        "contexts.create(0, None)",
    ],
)
def test_what_makes_no_sense_is_refused(guests: Runner, neighbour: Neighbour, call: str) -> None:
    code = f"model = models.load('tiny')\ntry: {call}\nexcept Err as error: result = error.value.code"
    with neighbour():
        assert guests.run(code).result in ("bad_request", "not_found")


def test_handles_after_their_release(guests: Runner, neighbour: Neighbour) -> None:
    code = """
model = models.load("tiny")
context = contexts.create(model, None)
contexts.release(context)
mask = grammars.create_mask("")
grammars.release_mask(mask)
codes = []
for call in (
    lambda: contexts.state(context), lambda: contexts.release(context), lambda: contexts.fork(context, None),
    lambda: passes.flush(context), lambda: grammars.read_mask(mask), lambda: grammars.release_mask(mask),
):
    try: call()
    except Err as error: codes.append(error.value.code)
result = codes
"""
    with neighbour():
        assert guests.run(code).result == str(["not_found"] * 6)


def test_handles_of_another_instance_mean_nothing(guests: Runner) -> None:
    code = "model = models.load('tiny')\ncontext = contexts.create(model, None)\nwaits.take(client.receive())"
    with guests.running(code) as other:
        ran = guests.run("try: contexts.state(1)\nexcept Err as error: result = error.value.code")
        assert ran.result == "not_found"
        other.guest.end(CANCELLED)


@pytest.mark.parametrize("most", [None, 10**9])
def test_deep_recursion(guests: Runner, neighbour: Neighbour, most: int | None) -> None:
    begin = f"sys.setrecursionlimit({most})\n" if most else ""
    with neighbour():
        ran = guests.run(f"{begin}def dig(n): return dig(n + 1)\ndig(0)")
    assert ran.outcome.failure is not None
    assert ran.outcome.failure.code == ("stack_overflow" if most else "program_error")


@pytest.mark.parametrize(
    "code",
    [
        "class Any:\n  def __repr__(self): return repr(self)\nrepr(Any())",
        "class Any:\n  def __eq__(self, other): return self == other\nAny() == Any()",
        "def f(): return sorted([1, 2], key=lambda _: f())\nf()",
    ],
)
def test_recursion_through_functions_of_python_itself(guests: Runner, code: str) -> None:
    """It is an exception, as anywhere, and not the program's end."""
    assert "RecursionError" in guests.run(code).error


def test_data_that_is_nested_too_deeply(guests: Runner, neighbour: Neighbour) -> None:
    with neighbour():
        ran = guests.run("json.loads('[' * 10**6)")
    assert ran.outcome.failure is not None
    assert ran.outcome.failure.code == "stack_overflow"


@pytest.mark.parametrize(
    "code",
    [
        "open('/etc/passwd').read()",
        "open('/proc/self/environ').read()",
        "open('note.txt', 'w').write('x')",
        "os.listdir('/')",
        "os.listdir('.')",
        "os.mkdir('/tmp/x')",
        "os.stat('/')",
    ],
)
def test_files_are_not_there(guests: Runner, code: str) -> None:
    assert guests.run(f"try: {code}\nexcept OSError: result = 'refused'").result == "refused"


def test_sockets_are_not_there(guests: Runner, neighbour: Neighbour) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server, neighbour():
        port = server.getsockname()[1]
        code = f"""
for family in (socket.AF_INET, socket.AF_INET6):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        try: socket.socket(family, kind).connect(("127.0.0.1", {port}))
        except OSError as error: result = "refused"
        else: result = "open"; break
"""
        assert guests.run(code).result == "refused"
        server.settimeout(0.05)
        with pytest.raises(TimeoutError):
            server.accept()


def test_nothing_of_the_server_is_seen(guests: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAKEHOUSE_SECRET", "s3cret")
    assert guests.run("result = dict(os.environ), sys.argv[1:], sys.stdin.read()").result == "({}, [], '')"


def test_an_output_flood(guests: Runner, neighbour: Neighbour) -> None:
    with neighbour():
        ran = guests.run("while True: print('x' * 1000)", output=100_000)
    assert ran.limit == "output"
    assert sum(len(text) for _, text in ran.seen.printed) == 100_000


def test_one_endless_line(guests: Runner, neighbour: Neighbour) -> None:
    with neighbour():
        ran = guests.run("while True: sys.stdout.write('x' * 4096)", output=300_000)
    assert ran.limit == "output"
    assert max(len(text) for _, text in ran.seen.printed) <= 65536
    assert sum(len(text) for _, text in ran.seen.printed) == 300_000


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("waits.take(client.receive())", id="waits for a message"),
        pytest.param("waits.any('', 1000.0)", id="waits for nothing"),
        pytest.param("time.sleep(1000)", id="sleeps"),
        pytest.param("while True: pass", id="computes"),
        pytest.param("sum(range(10**12))", id="computes in C"),
        pytest.param("while True: models.names()", id="calls"),
        pytest.param("while True: time.sleep(0)", id="sleeps and sleeps"),
        pytest.param("while True:\n  try: time.sleep(1000)\n  except BaseException: pass", id="sleeps, catching all"),
    ],
)
def test_cancelling(guests: Runner, neighbour: Neighbour, code: str) -> None:
    with neighbour():
        assert cancelled(guests, code) < 5


@pytest.mark.parametrize("code", ["waits.take(client.receive())", "time.sleep(1000)", "while True: pass"])
def test_cancelling_is_quick(guests: Runner, code: str) -> None:
    """A tenth of a second at most; the best of some, as other tests may run beside this one."""
    assert min(cancelled(guests, code) for _ in range(5)) < 0.1


def cancelled(guests: Runner, code: str) -> float:
    """Seconds from the cancel of a program that runs *code* to its end."""
    with guests.running(f"client.send('here')\n{code}") as started:
        deadline = time.monotonic() + 10
        while not started.seen.messages and time.monotonic() < deadline:
            time.sleep(0.005)
        before = time.monotonic()
        started.guest.end(CANCELLED)
        assert started.wait(10).outcome.failure == CANCELLED
        return time.monotonic() - before


def test_many_hostile_ones_at_a_time(guests: Runner, neighbour: Neighbour) -> None:
    codes = ["while True: pass", "kept = []\nwhile True: kept.append(bytes(10**6))", "while True: print('x' * 1000)"]
    limits = []
    with neighbour():
        threads = [
            threading.Thread(
                target=lambda code=code: limits.append(guests.run(code, cpu=0.3, memory=48 << 20, output=50_000).limit)
            )
            for code in codes * 4
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(filter(None, limits)) == ["cpu"] * 4 + ["memory"] * 4 + ["output"] * 4
