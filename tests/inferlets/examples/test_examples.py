"""Every example does what its page says: natively on the dummy and on a tiny real model, and in the sandbox."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.inferlets.examples.checks import CHECKS
from tests.inferlets.examples.conftest import Stages
from tests.inferlets.examples.support import EXAMPLES, NAMES, ROOT, manifest_of, source_of
from tests.support.inferlets import keep_builds

SLOW = pytest.mark.slow
SOON = ("hello-world", "text-completion", "beam-search", "constrained-json", "agent-swarm")
"""Those that are built and run in the sandbox each time; the others in `make test-slow`."""


def test_every_example_has_its_check() -> None:
    assert sorted(CHECKS) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_on_the_dummy(on_the_dummy: Stages, name: str) -> None:
    CHECKS[name](on_the_dummy[0])


@pytest.mark.parametrize("name", NAMES)
def test_on_a_tiny_model(on_a_tiny_model: Stages, name: str) -> None:
    CHECKS[name](on_a_tiny_model[0])


@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW if name not in SOON else ()) for name in NAMES])
def test_in_the_sandbox(on_the_dummy: Stages, name: str) -> None:
    CHECKS[name](on_the_dummy[1])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_in_the_sandbox_on_a_tiny_model(on_a_tiny_model: Stages, name: str) -> None:
    CHECKS[name](on_a_tiny_model[1])


@pytest.mark.slow
def test_agents_of_a_swarm_may_be_instances_of_their_own(on_the_dummy: Stages) -> None:
    _, baked = on_the_dummy
    jobs = [f"job {number}" for number in range(8)]
    done = baked.run("agent-swarm", agents=3, jobs=jobs, max_tokens=6, apart=True)
    assert sorted(done.result["made"]) == jobs
    assert sum(done.result["counts"].values()) == 8


@pytest.mark.parametrize("name", NAMES)
def test_its_folder_is_whole(name: str) -> None:
    """A manifest under its own name, a page with the commands, and a program that is short and says what it shows."""
    manifest = tomllib.loads(manifest_of(name))
    source = source_of(name).read_text(encoding="utf-8")
    page = (EXAMPLES / name / "README.md").read_text(encoding="utf-8")
    assert manifest["package"]["name"] == name
    assert manifest["package"]["description"]
    assert f"# {name}\n" in page
    assert f"bakery build examples/inferlets/{name} -o {name}.wasm" in page
    assert ast.get_docstring(ast.parse(source))
    assert source.count("\n") <= 80


def test_the_list_of_examples_is_whole() -> None:
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| \[([\w-]+)\]\(\1\) \|", page, re.MULTILINE)) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_its_manifest_says_what_it_reads(name: str) -> None:
    source = source_of(name).read_text(encoding="utf-8")
    read = set(re.findall(r'\binput(?:\.get\(|\[)"(\w+)"', source))
    assert set(tomllib.loads(manifest_of(name)).get("parameters", {})) == read


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return keep_builds(tmp_path_factory.mktemp("home"))


def typed(commands: str, home: Path) -> str:
    """What *commands* print, typed in the root of the repository."""
    environ = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "BAKEHOUSE_HOME": str(home),
    }
    done = subprocess.run(["bash", "-ec", commands], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, f"{commands}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_commands_of_its_page_run(name: str, tmp_path: Path, home: Path) -> None:
    """As a reader types them; what they make goes elsewhere."""
    page = (EXAMPLES / name / "README.md").read_text(encoding="utf-8")
    commands = (
        page.partition("```bash\n")[2].partition("```")[0].replace(f"{name}.wasm", str(tmp_path / f"{name}.wasm"))
    )
    assert commands.count("\n") == 2
    assert re.search(r"^\[(Message|Result)\] ", typed(commands, home), re.MULTILINE)


def test_pie_knows_the_mcp_servers_of_the_settings(home: Path) -> None:
    folder = "examples/inferlets/agent-react"
    lines = typed(f"pie run --dummy --config {folder}/bakehouse.toml --native {folder}/main.py </dev/null", home)
    assert '"observation": ' in lines.partition("\n")[0]
