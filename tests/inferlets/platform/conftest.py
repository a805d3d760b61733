"""A server with a dummy model and one program."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from inferencesh import Inference

from bakehouse.inferlets import bakery
from tests.inferlets.platform.programs import ACTOR
from tests.support.inferlets import CACHE, keep_builds
from tests.support.server import Server
from tests.support.waiting import wait_until

TOOLS = Path(__file__).parents[1] / "host" / "mcp_server.py"
SETTINGS = {
    "BAKEHOUSE_INFERLET_CPU_TIME": "2s",
    "BAKEHOUSE_INFERLET_MEMORY": "64MiB",
    "BAKEHOUSE_INFERLET_FILES": "8MiB",
    "BAKEHOUSE_MCP_SERVERS": json.dumps({"tools": {"command": [sys.executable, str(TOOLS)]}}),
}

Package = Callable[..., Path]
"""Of a name, a version and more of its manifest."""


@pytest.fixture(scope="session")
def actor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, built."""
    project = tmp_path_factory.mktemp("project")
    (project / "main.py").write_text(ACTOR)
    (project / "Pie.toml").write_text('[package]\nname = "actor"\nversion = "1.0.0"\n')
    return bakery.build(project, project.parent / "actor.wasm", cache=CACHE / "bakery").path


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory, actor: Path) -> Package:
    """A folder with the program and a manifest."""

    def make(name: str = "actor", version: str = "1.0.0", more: str = "") -> Path:
        folder = tmp_path_factory.mktemp(name)
        (folder / "program.wasm").hardlink_to(actor)
        (folder / "Pie.toml").write_text(f'[package]\nname = "{name}"\nversion = "{version}"\n{more}')
        return folder

    return make


def with_model(home: Path, name: str = "tiny") -> Path:
    """*home*, with a dummy model in it, and with what earlier tests have built and compiled."""
    keep_builds(home)
    # As `bakehouse models add` writes it, which takes a process and a second.
    (home / "models").mkdir(exist_ok=True)
    (home / "models" / f"{name}.toml").write_text('source = "dummy"\n')
    return home


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, package: Package) -> Iterator[Server]:
    """A server that runs inferlets, with ``local/actor``, for all files: its node may be killed, it stays."""
    started = Server(with_model(tmp_path_factory.mktemp("server") / "home"), env=SETTINGS)
    try:
        started.start()
        started.deploy(package())
        yield started
    finally:
        started.kill()


@pytest.fixture
def client(server: Server) -> Iterator[Inference]:
    with Inference(server.key, base_url=server.base_url) as found:
        yield found


def nodes_of(server: Server) -> list[psutil.Process]:
    """The server's node, where it has one now."""
    found = []
    for process in psutil.Process(server.pid).children():
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):  # it is just dying
            if "bakehouse.wiring.node" in process.cmdline():
                found.append(process)
    return found


def kill_node(server: Server) -> None:
    """Kill it, and wait for the next one's process."""
    (node,) = nodes_of(server)
    node.kill()
    wait_until(lambda: [it.pid for it in nodes_of(server)] not in ([], [node.pid]), "the next node", 60, every=0.05)
