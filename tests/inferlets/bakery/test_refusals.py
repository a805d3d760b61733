"""Projects that cannot become a program: each is refused with its file, its line and the reason."""

from __future__ import annotations

import json
from pathlib import Path

import inferlet
import inferlet.aio
import pytest

from bakehouse.inferlets import bakery
from bakehouse.inferlets.bakery import BadProject, Problem

MANIFEST = '[package]\nname = "tried"\nversion = "0.1.0"\n'


def project(folder: Path, files: dict[str, str]) -> Path:
    for name, text in {"Pie.toml": MANIFEST, **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def refused(source: Path) -> list[Problem]:
    """What is wrong with *source*; nothing is written."""
    out = source.parent / f"{source.name}-refused.wasm"
    with pytest.raises(BadProject) as caught:
        bakery.build(source, out, cache=source.parent / "no-cache")
    assert not out.exists()
    return list(caught.value.problems)


def only(source: Path) -> tuple[str, int | None, str]:
    (problem,) = refused(source)
    return problem.file, problem.line, problem.text


# Entry points


def test_a_folder_without_python_has_no_entry_point(tmp_path: Path) -> None:
    file, line, text = only(project(tmp_path, {}))
    assert (file, line) == (str(tmp_path), None)
    assert "no entry point" in text
    assert "no Python file" in text


def test_of_several_files_none_is_guessed(tmp_path: Path) -> None:
    _, _, text = only(project(tmp_path, {"one.py": "", "two.py": ""}))
    assert "one.py, two.py" in text


def test_what_is_not_there_is_said_so(tmp_path: Path) -> None:
    assert "no such file" in only(tmp_path / "nowhere")[2]


def test_a_file_must_be_python(tmp_path: Path) -> None:
    assert "Python file" in only(project(tmp_path, {"main.rs": ""}) / "main.rs")[2]


# Manifests


def test_without_a_manifest_there_is_no_name(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("")
    for source in (tmp_path, tmp_path / "main.py"):
        file, line, text = only(source)
        assert (file, line) == ("Pie.toml", None)
        assert "package.name" in text
        assert '[package]\nname = "my-program"' in text


@pytest.mark.parametrize(
    ("manifest", "line", "words"),
    [
        ('\n[package]\nversion = "0.1.0"\n', 2, "package.name: must be given"),
        ('[package]\nname = "x"\n', 1, "package.version: must be given"),
        ('[package]\nname = "x"\nversion = "1.0"\n', 3, "MAJOR.MINOR.PATCH"),
        ('[package]\nname = "a b"\nversion = "1.0.0"\n', 2, "no name of a program"),
        ('[package]\nname = "x"\nversion = "1.0.0"\nlicence = "?"\n', 4, "there is no such field"),
        ('[package]\nname = "x"\nversion = "1.0.0"\n\n[server]\nport = 1\n', 5, "there is no such field"),
        ('[package]\nname = "x"\nversion = "1.0.0"\n[runtime]\ncore = "^9"\n', 5, "requires ^9"),
        ('[package]\nname = "x"\nversion = "1.0.0"\n[parameters.n]\ntype = "tuple"\n', 4, "parameters.n.type"),
        ("[package\n", 1, "TOML"),
        ("", None, "package: must be given"),
    ],
)
def test_a_wrong_manifest_names_its_line(tmp_path: Path, manifest: str, line: int | None, words: str) -> None:
    file, found, text = only(project(tmp_path, {"Pie.toml": manifest, "main.py": ""}))
    assert (file, found) == ("Pie.toml", line)
    assert words in text


# Sources


def test_a_syntax_error_has_its_line(tmp_path: Path) -> None:
    file, line, text = only(project(tmp_path, {"main.py": "x = 1\ndef f(:\n"}))
    assert (file, line) == ("main.py", 2)
    assert text.startswith("SyntaxError")


@pytest.mark.parametrize("line", ["return 3", "await x", "from __future__ import annotations"])
def test_so_it_has_where_only_the_grammar_is_right(tmp_path: Path, line: str) -> None:
    assert only(project(tmp_path, {"main.py": f"x = 1\n{line}\n"}))[:2] == ("main.py", 2)


def test_relative_imports_out_of_all_packages(tmp_path: Path) -> None:
    files = {"main.py": "from . import other\nimport lib\n", "other.py": "", "lib/__init__.py": "from ..x import y\n"}
    found = [(each.file, each.line) for each in refused(project(tmp_path, files))]
    assert found == [("lib/__init__.py", 1), ("main.py", 1)]
    guarded = "try:\n    from . import other\nexcept ImportError:\n    import other\n"
    bakery.check(project(tmp_path / "guarded", {"main.py": guarded, "other.py": ""}))


@pytest.mark.parametrize(("name", "whose"), [("inferlet", "the SDK"), ("json", "Python")])
def test_an_own_module_that_another_would_hide(tmp_path: Path, name: str, whose: str) -> None:
    file, line, text = only(project(tmp_path, {"main.py": f"import {name}\n", f"{name}.py": ""}))
    assert (file, line) == ("main.py", 1)
    assert f"{whose} has a module of this name" in text


@pytest.mark.parametrize(
    "source", ["x = " + "(" * 5000 + ")" * 5000, "x = " + "-" * 100_000 + "1", "x" + ".y" * 20_000]
)
def test_a_source_that_would_break_the_reader(tmp_path: Path, source: str) -> None:
    file, _, text = only(project(tmp_path, {"main.py": source}))
    assert file == "main.py"
    assert "nested" in text or text.startswith("SyntaxError")


def test_a_source_of_zero_bytes(tmp_path: Path) -> None:
    assert only(project(tmp_path, {"main.py": "x = 1\0"}))[0] == "main.py"


def test_so_it_has_in_a_module_that_is_imported(tmp_path: Path) -> None:
    files = {"main.py": "from lib.deep import x\n", "lib/__init__.py": "", "lib/deep.py": "\n\n1 = x\n"}
    assert only(project(tmp_path, files))[:2] == ("lib/deep.py", 3)


def test_what_is_not_imported_is_nobodys_business(tmp_path: Path) -> None:
    """A script that talks to the program from outside may lie beside it."""
    files = {"main.py": "1 = x\n", "client.py": "import socket, torch\n", "broken.py": "def (\n"}
    assert only(project(tmp_path, files))[0] == "main.py"


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("import socket", "no network"),
        ("import urllib.request", "no network"),
        ("from urllib import request", "no network"),
        ("import requests", "no network"),
        ("import subprocess", "runtime.spawn"),
        ("from concurrent.futures import ThreadPoolExecutor", "asyncio.gather"),
        ("import threading", "asyncio.gather"),
        ("import ctypes", "native code"),
        ("import numpy as np", "native code"),
        ("import pandas.api", "native code"),
        ("import sqlite3", "no databases"),
        ("import tempfile", "no files"),
        ("import tkinter", "terminal"),
        ("import distutils", "not have it any more"),
        ("import importlib; importlib.import_module('socket')", "no network"),
    ],
)
def test_an_import_that_cannot_work_says_why(tmp_path: Path, statement: str, words: str) -> None:
    file, line, text = only(project(tmp_path, {"main.py": f"import json\n\ndef main():\n    {statement}\n"}))
    assert (file, line) == ("main.py", 4)
    assert words in text


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("from inferlet import Sampler, Contxt", "no such name; did you mean Context?"),
        ("from inferlet.aio import gather_all", "no such name"),
        ("import inferlet.sessions", "no such module"),
        ("from inferlet import client", "no network"),
        ("from inferlet.remote import connect", "no network"),
    ],
)
def test_a_name_that_the_sdk_has_not(tmp_path: Path, statement: str, words: str) -> None:
    file, line, text = only(project(tmp_path, {"main.py": f"import json\n{statement}\n"}))
    assert (file, line) == ("main.py", 2)
    assert words in text


def test_all_names_of_the_sdk_can_be_imported(tmp_path: Path) -> None:
    names = ", ".join(inferlet.__all__)
    aio = ", ".join(inferlet.aio.__all__)
    modules = "from inferlet.events import Event\nimport inferlet.aio.session\nfrom inferlet import aio, masks\n"
    source = f"from inferlet import {names}\nfrom inferlet.aio import {aio}\n{modules}"
    assert bakery.check(project(tmp_path, {"main.py": source})).name == "tried"


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    files = {"main.py": "import socket\nimport helper\nimport numpy\n", "helper.py": "import threading\n"}
    assert [(found.file, found.line) for found in refused(project(tmp_path, files))] == [
        ("helper.py", 1),
        ("main.py", 1),
        ("main.py", 3),
    ]


def test_a_module_that_nobody_brings(tmp_path: Path) -> None:
    file, line, text = only(project(tmp_path, {"main.py": "import json\nimport no_such_module.part\n"}))
    assert (file, line) == ("main.py", 2)
    assert "requirements.txt" in text


def test_a_link_out_of_the_project(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    source = project(tmp_path / "in", {"main.py": "import pkg\n", "pkg/__init__.py": ""})
    (source / "pkg" / "data.txt").symlink_to(tmp_path / "secret.txt")
    (source / "pkg" / "round").symlink_to(source)
    assert only(source) == ("pkg/data.txt", None, "links to a place outside of the project")


def test_imports_that_are_not_needed_are_left_alone(tmp_path: Path) -> None:
    source = """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import numpy
try:
    import orjson
except ImportError:
    orjson = None
try:
    import socket
finally:
    import no_such_module
"""
    assert [found.line for found in refused(project(tmp_path, {"main.py": source}))] == [10]


# Dependencies


def test_a_dependency_that_is_not_pure_python(tmp_path: Path) -> None:
    file, _, text = only(project(tmp_path, {"main.py": "", "requirements.txt": "orjson==3.10.0\n"}))
    assert file == "requirements"
    assert text.endswith("no version of orjson is there as a wheel of pure Python")


def test_a_project_that_is_no_table(tmp_path: Path) -> None:
    file, _, text = only(project(tmp_path, {"main.py": "", "pyproject.toml": "project = 3\n"}))
    assert (file, text) == ("pyproject.toml", "project: must be a table")


def test_dynamic_dependencies_are_not_guessed(tmp_path: Path) -> None:
    toml = '[project]\nname = "x"\nversion = "1"\ndynamic = ["dependencies"]\n'
    file, _, text = only(project(tmp_path, {"main.py": "", "pyproject.toml": toml}))
    assert file == "pyproject.toml"
    assert "dynamic" in text


# The place to write to


def test_the_result_is_a_file(tmp_path: Path) -> None:
    source = project(tmp_path / "in", {"main.py": ""})
    (tmp_path / "out").mkdir()
    with pytest.raises(BadProject, match="is a folder"):
        bakery.build(source, tmp_path / "out", cache=tmp_path / "cache")


@pytest.mark.parametrize(
    "lines",
    [
        "-e ./pkg",
        "\ufeff-e ./pkg",
        "--no-binary harm\nharm @ file:{pkg}",
        "loaf \\\n--no-binary=harm\nharm @ file:{pkg}",
        "harm @ file:{pkg}",
        "./pkg",
    ],
)
def test_requirements_run_no_code_of_the_project(tmp_path: Path, lines: str) -> None:
    """Of somebody else's project, that is: it would run outside of any sandbox."""
    mark = tmp_path / "harm was done"
    backend = f"open({str(mark)!r}, 'w')\ndef build_wheel(*_, **__): 0 / 0\nbuild_editable = build_wheel\n"
    system = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    package = {"pkg/pyproject.toml": system + '[project]\nname = "harm"\nversion = "1"\n', "pkg/backend.py": backend}
    folder = tmp_path / "project"
    text = lines.format(pkg=folder / "pkg")
    assert only(project(folder, {"main.py": "", "requirements.txt": text, **package}))[0] == "requirements"
    (folder / "requirements.txt").unlink()
    dependencies = f"[project]\nname = 'it'\nversion = '1'\ndependencies = [{json.dumps(text)}]\n"
    assert only(project(folder, {"pyproject.toml": dependencies}))[0] == "requirements"
    assert not mark.exists()
