"""What a built program finds when it is launched, and what becomes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.inferlets.bakery.conftest import Launched
from tests.inferlets.bakery.test_refusals import project

ANYTHING = """
import asyncio, json, os, random, sys, time, uuid

RANDOM = random.Random()

def main(args):
    found = dict(globals())
    exec(args[0], found)
    return found.get("result")
"""
"""Runs its argument, so that many cases need one build."""


@pytest.mark.parametrize(
    ("program", "arguments", "expected"),
    [
        ("x = 1", [], ""),
        ("def main(): return 'said'", [], "said"),
        ("def main(args): return args", ["a", "ü"], '["a", "ü"]'),
        ("def main(input): return input['n'] + 1", ['{"n": 2}'], "3"),
        ("async def main(x: dict): return x", ["--n", "2"], '{"n": 2}'),
        ("import sys\nsys.exit()", [], ""),
    ],
)
def test_entry_points(launched: Launched, program: str, arguments: list[str], expected: str) -> None:
    assert launched(program, *arguments).result == expected


def test_top_level_code_runs_at_launch_with_its_host(launched: Launched) -> None:
    ran = launched("from inferlet import runtime, session\nsession.send(runtime.username())\nprint(__name__)")
    assert ran.messages == ["local"]
    assert ran.stdout == "__main__\n"


def test_every_launch_starts_afresh(launched: Launched) -> None:
    """The snapshot has a generator of random numbers, and a clock that was looked at; no launch may see either. Its
    seed of hashes is in the interpreter's own tables, and stays; the page of the sandbox says so."""
    code = """
result = {"random": random.random(), "uuid": str(uuid.uuid4()), "urandom": os.urandom(8).hex(), "time": time.time(),
          "state": vars(json).setdefault("seen", 0), "hash": hash("rye")}
json.seen = 1
"""
    before = __import__("time").time()
    first, second = (json.loads(launched(ANYTHING, code).result) for _ in range(2))
    assert all(first[key] != second[key] for key in ("random", "uuid", "urandom"))
    assert before < first["time"] < second["time"] < before + 600
    assert first["state"] == second["state"] == 0
    assert first["hash"] == second["hash"]


def test_what_a_launch_makes_lies_together(launched: Launched) -> None:
    """Each page of the snapshot that it writes to is copied for it."""
    code = """
made = [bytes(20 + number % 400) for number in range(2000)]
result = [len({id(each) >> 12 for each in made}), sum(map(sys.getsizeof, made)) >> 12]
"""
    pages, needed = json.loads(launched(ANYTHING, code).result)
    assert needed < pages < 1.5 * needed


def test_an_error_has_its_type_its_text_and_the_programs_frames(launched: Launched) -> None:
    ran = launched("from inferlet import Model\n\ndef main():\n    Model.load('nothing')\n")
    assert ran.error.startswith("NotFound: ")
    assert 'File "main.py", line 4, in main\n    Model.load' in ran.stderr
    assert ran.stderr.count('File "') == 1
    assert ran.stderr.splitlines()[-1].endswith(ran.error)


def test_leaving_with_a_status_is_an_error(launched: Launched) -> None:
    assert "left with 3" in launched(ANYTHING, "sys.exit(3)").error


def test_prints_arrive_whole(launched: Launched) -> None:
    ran = launched(ANYTHING, "print('é', 1)\nprint('to stderr', file=sys.stderr)\nsys.stdout.write('no end')")
    assert ran.stdout.startswith("é 1\n")
    assert "no end" in ran.stdout
    assert ran.stderr == "to stderr\n"


def test_asyncio_runs_on_the_hosts_waits(launched: Launched) -> None:
    code = """
async def one(n):
    await asyncio.sleep(0.05)
    return n
async def all_():
    return await asyncio.gather(*map(one, range(8)))
start = time.monotonic()
done = asyncio.run(all_())
result = [done, time.monotonic() - start]
"""
    done, seconds = json.loads(launched(ANYTHING, code).result)
    assert done == list(range(8))
    assert 0.05 <= seconds < 0.4


def test_own_modules_packages_and_data(launched: Launched, tmp_path: Path) -> None:
    """They run at launch, at their first import, and find each other and their data."""
    files = {
        "main.py": "import order\nfrom pkg import deep\nfrom pkg.sub.leaf import leaf\n\ndef main():\n"
        "    import late\n    return [order.seen, deep.text(), leaf, late.__name__]\n",
        "order.py": "from inferlet import runtime\nseen = runtime.username()\n",
        "late.py": "",
        "pkg/__init__.py": "",
        "pkg/deep.py": "import pkgutil\nfrom importlib import resources\n\ndef text():\n"
        "    here = resources.files('pkg')\n"
        "    return (here / 'data' / 'a.txt').read_text() + pkgutil.get_data('pkg', 'data/b.bin').decode()\n",
        "pkg/data/a.txt": "A",
        "pkg/data/b.bin": "B",
        "pkg/sub/leaf.py": "from ..deep import text\nleaf = text()[0]\n",
        "unused.py": "1 = x",
    }
    assert json.loads(launched(project(tmp_path, files)).result) == ["local", "AB", "A", "late"]


def test_a_dataclass_and_pickle_find_the_programs_module(launched: Launched) -> None:
    program = """
import pickle
from dataclasses import dataclass

@dataclass
class Point:
    x: int

def main():
    return pickle.loads(pickle.dumps(Point(3))).x
"""
    assert launched(program).result == "3"


def test_files_and_the_network_are_not_there(launched: Launched) -> None:
    for code in ("open('/etc/passwd')", "open('Pie.toml')", "os.listdir('/')", "os.listdir('/0')"):
        assert "Error" in launched(ANYTHING, f"result = {code}").error


def test_what_is_used_later_is_there_too(launched: Launched) -> None:
    """Some of the standard library imports its parts when they are first used, and finds no files then."""
    code = """
import datetime, decimal, encodings
result = [datetime.datetime.strptime("2024-02-03", "%Y-%m-%d").day, str(decimal.Decimal("0.1") * 3),
          "é".encode("latin-1").decode("cp1252"), "ü".encode("utf-16")[:2].hex(), len(str(10**4000)),
          "straße".encode("idna").decode(), __import__("unittest.mock").mock.Mock(name="sqrt")._mock_name]
"""
    assert json.loads(launched(ANYTHING, code).result) == [3, "0.3", "é", "fffe", 4001, "strasse", "sqrt"]
