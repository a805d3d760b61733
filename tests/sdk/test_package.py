"""The package's face: its names, its signatures, what importing it does."""

from __future__ import annotations

import inspect
import subprocess
import sys

import inferencesh
import infsh
import pytest
from inferencesh import AsyncInference, Inference
from inferencesh._operations import operation


def test_every_name_of_the_list_is_there() -> None:
    for name in inferencesh.__all__:
        assert getattr(inferencesh, name) is not None, name
    assert inferencesh.__all__ == sorted(inferencesh.__all__)
    assert dir(inferencesh) == inferencesh.__all__


def test_the_app_sdk_is_re_exported() -> None:
    assert set(infsh.__all__) <= set(inferencesh.__all__)
    assert all(getattr(inferencesh, name) is getattr(infsh, name) for name in infsh.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = inferencesh.no_such_name  # type: ignore[attr-defined]


def test_importing_it_is_light_and_changes_nothing() -> None:
    program = """
import logging, os, sys
before = dict(os.environ), list(logging.root.handlers)
import inferencesh
assert (dict(os.environ), list(logging.root.handlers)) == before
loaded = {name.split(".")[0] for name in sys.modules}
print(sorted(loaded & {"infsh", "bakehouse", "pydantic", "fastapi"}))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_both_clients_have_the_same_methods_with_the_same_parameters() -> None:
    def face(kind: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(member).parameters)
            for name, member in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
        }

    assert face(Inference) == face(AsyncInference)


def test_operations_show_their_parameters_and_text() -> None:
    client = Inference("k")
    assert list(inspect.signature(client.wait_for_completion).parameters) == ["task_id", "timeout", "options"]
    assert "TaskTimeout" in (inspect.getdoc(client.wait_for_completion) or "")
    assert isinstance(Inference.get_task, operation)
    assert inspect.iscoroutinefunction(AsyncInference("k").get_task) is False  # it returns a coroutine of its driver's


def test_wrong_arguments_are_told_at_once() -> None:
    with pytest.raises(TypeError, match="task_id"):
        Inference("k").get_task()  # type: ignore[call-arg]
