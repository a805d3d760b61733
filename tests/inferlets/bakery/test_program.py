"""From code and arguments to a result, as both the sandbox and native mode do it."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

import pytest
from inferlet._program import ProgramError, input_of, module_name, positional, run, user_traceback


def result(source: str, *arguments: str) -> str:
    module = ModuleType(module_name(source, "main.py"))
    return run(compile(source, "main.py", "exec"), module, arguments)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = 1", ""),
        ("def main(): return 'done'", "done"),
        ("def main(): return None", ""),
        ("def main(): return {'é': [1, 2.5]}", '{"é": [1, 2.5]}'),
        ("def main(args): return args", '["a", "b"]'),
        ("async def main(): return 'async'", "async"),
        ("import asyncio\nasync def main(args):\n    await asyncio.sleep(0)\n    return args[0]", "a"),
        ("import sys\nsys.exit()", ""),
        ("import sys\ndef main(): sys.exit(0)", ""),
        ("import sys\ndef main(): return sys.argv[1:]", '["a", "b"]'),
        ("main = 3", ""),
    ],
)
def test_forms_of_a_program(source: str, expected: str) -> None:
    assert result(source, "a", "b") == expected


def test_top_level_code_runs_as_a_script_does() -> None:
    assert result("found = __name__\ndef other(): ...\nassert found == '__main__'") == ""


def test_a_guarded_main_runs_once() -> None:
    source = (
        "calls = []\ndef main():\n    calls.append(1)\n    return len(calls)\nif __name__ == '__main__':\n    main()"
    )
    assert result(source) == "1"


@pytest.mark.parametrize("head", ["def main(input)", "def main(x: dict)", "def main(x: 'dict[str, int]')"])
def test_main_with_an_input(head: str) -> None:
    assert json.loads(result(f"{head}: return x if 'x' in locals() else input", '{"n": 3}')) == {"n": 3}


def test_annotations_need_not_be_there() -> None:
    assert result("from __future__ import annotations\ndef main(args: Nowhere): return len(args)", "a") == "1"


@pytest.mark.parametrize("head", ["def main(a, b)", "def main(*args)", "def main(*, key)", "def main(a, *, key)"])
def test_another_signature_is_refused(head: str) -> None:
    with pytest.raises(ProgramError, match="main takes nothing"):
        result(f"{head}: ...")


def test_parameters_with_defaults_are_left_alone() -> None:
    def main(args: Any, verbose: bool = False) -> None: ...

    assert positional(main, ["a"]) == (["a"],)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], {}),
        (['{"a": 1}'], {"a": 1}),
        (["--prompt", "two words", "--n", "3"], {"prompt": "two words", "n": 3}),
        (["--max-tokens=7", "--stop", '["x"]'], {"max_tokens": 7, "stop": ["x"]}),
        (["--verbose", "--t", "-0.5"], {"verbose": True, "t": -0.5}),
        (["--text", "123abc"], {"text": "123abc"}),
        (["--empty="], {"empty": ""}),
    ],
)
def test_arguments_as_an_input(arguments: list[str], expected: dict[str, Any]) -> None:
    assert input_of(arguments) == expected


@pytest.mark.parametrize("arguments", [["loose"], ["[1]"], ["--a", "1", "2"]])
def test_arguments_that_are_no_input(arguments: list[str]) -> None:
    with pytest.raises(ProgramError, match="neither"):
        input_of(arguments)


@pytest.mark.parametrize(
    "source", ["def main(): return object()", "import sys\nsys.exit('no')", "import sys\nsys.exit(2)"]
)
def test_ends_that_are_errors(source: str) -> None:
    with pytest.raises(ProgramError):
        result(source)


def test_a_traceback_shows_the_programs_frames() -> None:
    source = (
        "def inner():\n    raise KeyError('gone')\n"
        "def main():\n    try:\n        inner()\n    except KeyError as e:\n        raise ValueError('bad') from e"
    )
    with pytest.raises(ValueError) as caught:
        result(source)
    shown = user_traceback(caught.value, lambda path: path == "main.py")
    assert shown.count('File "main.py"') == shown.count("File ") == 3
    assert shown.endswith("ValueError: bad\n")
    assert "KeyError: 'gone'" in shown
