"""How the code of a program becomes its result. The same in the sandbox, under `pie run --native` and in tests.

The code runs as a script does, then its ``main`` is called, if it has one:

- ``main()``
- ``main(args)``: the arguments, a list of str
- ``main(input)``, or ``main(x: dict)``: the arguments as one dict, see `input_of`

``main`` may be ``async def``. What it returns is the result: a str as it is, None as "", anything else as JSON.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from types import CodeType, ModuleType
from typing import Any

_DICT = re.compile(r"(typing\.|t\.|collections\.abc\.)?(dict|Dict|Mapping|MutableMapping)\b")


class ProgramError(Exception):
    """The program and its arguments do not fit together; the text says how."""


def run(code: CodeType, module: ModuleType, arguments: Sequence[str]) -> str:
    """Execute *code* in *module*, call its ``main``, and return the result. Raises what the program raises.

    ``sys.exit()`` without a value, or with 0, ends the program normally, with no result.
    """
    sys.modules[module.__name__] = module
    sys.argv[:] = [code.co_filename, *arguments]
    try:
        exec(code, module.__dict__)
        main = module.__dict__.get("main")
        return text_of(_call(main, arguments)) if callable(main) else ""
    except SystemExit as stop:
        if stop.code:
            raise ProgramError(f"the program left with {stop.code!r}") from None
        return ""


def module_name(source: str | bytes, path: str) -> str:
    """The ``__name__`` that a program's own file gets: ``__main__``, or the file's stem where it defines ``main``.

    A file may guard a call of its ``main`` by ``if __name__ == "__main__"``; as we call it too, it would run twice.
    """
    import ast

    for statement in ast.parse(source).body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)) and statement.name == "main":
            return path.rpartition("/")[2].removesuffix(".py")
    return "__main__"


def _call(main: Callable[..., Any], arguments: Sequence[str]) -> Any:
    value = main(*positional(main, arguments))
    if inspect.iscoroutine(value):
        import asyncio

        # In the sandbox this makes the host's loop, see `_async.install`. Outside it is asyncio's own, so that packages
        # which have sockets and threads work.
        value = asyncio.run(value)
    return value


def positional(main: Callable[..., Any], arguments: Sequence[str]) -> tuple[Any, ...]:
    """What *main* is called with, by its signature. Raises `ProgramError` for a signature that is none of ours."""
    if _takes_nothing(main):
        return ()
    parameters = list(_signature(main).parameters.values())
    if not parameters:
        return ()
    first, *others = parameters
    if any(other.default is other.empty and other.kind in _NEEDED for other in others) or first.kind not in _PLAIN:
        raise ProgramError("main takes nothing, a list of arguments or an input: main(), main(args) or main(input)")
    annotation = first.annotation if isinstance(first.annotation, str) else _name_of(first.annotation)
    # Twice a string, it keeps its quotes: an annotation in quotes below `from __future__ import annotations`.
    if first.name == "input" or _DICT.match(annotation.strip("'\"")):
        return (input_of(arguments),)
    return (list(arguments),)


def _takes_nothing(main: Callable[..., Any]) -> bool:
    """Known at once of a plain function; a signature takes a while."""
    code = getattr(main, "__code__", None)
    if code is None or hasattr(main, "__wrapped__"):
        return False
    return not (code.co_argcount or code.co_kwonlyargcount or code.co_flags & _STARS)


_STARS = inspect.CO_VARARGS | inspect.CO_VARKEYWORDS
_PLAIN = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_NEEDED = (*_PLAIN, inspect.Parameter.KEYWORD_ONLY)


def _signature(main: Callable[..., Any]) -> inspect.Signature:
    if sys.version_info >= (3, 14):
        # Annotations may name what only a type checker imports, so they are not to be evaluated.
        from annotationlib import Format

        return inspect.signature(main, annotation_format=Format.STRING)
    return inspect.signature(main)


def _name_of(annotation: Any) -> str:
    return str(getattr(annotation, "__name__", getattr(annotation, "__forward_arg__", annotation)))


def input_of(arguments: Sequence[str]) -> dict[str, Any]:
    """Arguments as a dict: one JSON object, or ``--name value`` pairs.

    A value that is JSON is taken as such, another one as text; a name without a value is True. Dashes inside a name
    become underscores. Raises `ProgramError`.
    """
    whole = _json(arguments[0]) if len(arguments) == 1 else None
    if isinstance(whole, dict):
        return whole
    found: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not re.match(r"--[A-Za-z_]", word):
            raise ProgramError(f"arguments are one JSON object, or --name value pairs; {word!r} is neither")
        name, given, value = word[2:].partition("=")
        if not given and rest and not rest[0].startswith("--"):
            given, value = "=", rest.pop(0)
        found[name.replace("-", "_")] = _json(value, value) if given else True
    return found


def _json(text: str, otherwise: Any = None) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return otherwise


def text_of(value: Any) -> str:
    """What ``main`` returned, as the program's result. Raises `ProgramError` for what JSON cannot say."""
    if value is None:
        return ""
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        text.encode()
        return text
    except (TypeError, ValueError) as error:
        raise ProgramError(f"main returned a {type(value).__name__} that cannot be said as text: {error}") from None


def error_text(error: BaseException) -> str:
    """``TypeName: text``, as the last line of a traceback."""
    text = str(error).encode("utf-8", "backslashreplace").decode()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def user_traceback(error: BaseException, is_users: Callable[[str], bool]) -> str:
    """The traceback of *error* with only those frames whose file *is_users* says to be the program's own."""
    shown = traceback.TracebackException.from_exception(error)
    seen: set[int] = set()
    todo: list[traceback.TracebackException | None] = [shown]
    while todo:
        part = todo.pop()
        if part is None or id(part) in seen:
            continue
        seen.add(id(part))
        part.stack = traceback.StackSummary.from_list([frame for frame in part.stack if is_users(frame.filename)])
        todo += [part.__cause__, part.__context__, *(part.exceptions or ())]
    return "".join(shown.format())
