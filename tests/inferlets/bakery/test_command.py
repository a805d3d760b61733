"""The command ``bakery``, as a process and against a real server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartServer
from tests.inferlets.bakery.test_refusals import MANIFEST, project
from tests.inferlets.platform.conftest import with_model
from tests.support.inferlets import keep_builds
from tests.support.server import Server

RUN = "import sys; from bakehouse.cli.bakery import main; main(sys.argv[1:])"


def bakery(*words: str | Path, cwd: Path, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == status, (done.stdout, done.stderr)
    return done


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return keep_builds(tmp_path_factory.mktemp("home"))


def test_create_and_build(tmp_path: Path, home: Path) -> None:
    made = bakery("create", "first-loaf", cwd=tmp_path)
    assert "Next: bakery build first-loaf -o first-loaf.wasm" in made.stdout
    done = bakery("build", "first-loaf", "--home", home, cwd=tmp_path)
    assert "first-loaf.wasm: first-loaf@0.1.0, " in done.stdout
    again = bakery("build", "first-loaf/main.py", "-o", "other.wasm", "--home", home, "--json", cwd=tmp_path)
    told = json.loads(again.stdout)
    assert (told["path"], told["program"], told["cached"]) == ("other.wasm", "first-loaf@0.1.0", True)
    assert told["size"] == (tmp_path / "other.wasm").stat().st_size
    assert (tmp_path / "other.wasm").read_bytes() == (tmp_path / "first-loaf.wasm").read_bytes()


def test_a_wrong_project_is_a_line_for_each_fault(tmp_path: Path) -> None:
    project(tmp_path, {"main.py": "import socket\nimport numpy\n"})
    done = bakery("build", ".", cwd=tmp_path, status=2)
    lines = done.stderr.splitlines()
    assert lines[0].startswith("error: main.py:1: import socket: ")
    assert lines[1].startswith("main.py:2: import numpy: ")
    assert done.stdout == ""
    assert not list(tmp_path.glob("*.wasm"))


def test_what_is_there_is_not_created(tmp_path: Path) -> None:
    project(tmp_path / "mine", {})
    assert "not empty" in bakery("create", "mine", cwd=tmp_path, status=2).stderr
    assert (tmp_path / "mine" / "Pie.toml").read_text() == MANIFEST


# A server as the registry


@pytest.fixture(scope="module")
def server(module_servers: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Server:
    home = with_model(tmp_path_factory.mktemp("registry") / "home")
    return module_servers(home)


def test_publish_search_and_info(server: Server, tmp_path: Path) -> None:
    parameters = '[parameters]\nhours = { type = "int", description = "How long" }\n'
    manifest = f'{MANIFEST}description = "Proves dough"\n\n{parameters}'
    project(tmp_path, {"Pie.toml": manifest, "main.py": "def main(input): return input['hours']\n"})
    options = ("--url", server.base_url, "--key", server.key)
    published = bakery("inferlet", "publish", *options, cwd=tmp_path)
    assert published.stdout.startswith("local/tried@")
    assert [row["ref"] for row in _json("inferlet", "search", "dough", *options, cwd=tmp_path)] == ["local/tried"]
    assert _json("inferlet", "search", "nothing-like-it", *options, cwd=tmp_path) == []
    told = bakery("inferlet", "info", "tried", *options, cwd=tmp_path).stdout
    assert told.startswith("local/tried@0.1.0")
    assert "--hours  integer  How long" in told


def test_what_cannot_be_built_is_not_uploaded(server: Server, tmp_path: Path) -> None:
    project(tmp_path, {"main.py": "import socket\n"})
    done = bakery("inferlet", "publish", "--url", server.base_url, "--key", server.key, cwd=tmp_path, status=2)
    assert "main.py:1: import socket" in done.stderr


def _json(*words: str | Path, cwd: Path) -> Any:
    return json.loads(bakery(*words, "--json", cwd=cwd).stdout)
