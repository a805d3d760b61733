"""What the documentation shows works: its code and its commands run, page by page, against a real server.

A page is a story: its blocks run in order, in one folder and one namespace.

* ``python`` runs; with ``file=PATH`` it is written there instead, as is every other language with ``file=``.
* ``console``: each line that begins with ``$`` runs and must succeed; the other lines show what a reader may see.
* Everything else (``text``, ``toml``, ``json``, ``http``) is for reading.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartServer
from tests.docs.pages import PAGES, ROOT, Block, blocks
from tests.inferlets.platform.conftest import with_model
from tests.support.inferlets import keep_builds
from tests.support.server import Server

RUN = ("python", "console")
STORIES = [page for page in PAGES if any(block.language in RUN or "file" in block.options for block in blocks(page))]
NOT_HERE = ("make ", "bakehouse serve")
"""Beginnings of commands that set up what the tests have already, or that do not end."""


@pytest.fixture(scope="module")
def bakehouse_server(module_servers: StartServer, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A server with the dummy model, so that it runs inferlets."""
    return module_servers(home=with_model(tmp_path_factory.mktemp("server") / "home"))


@pytest.mark.parametrize("page", STORIES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_page_works(page: Path, bakehouse_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _as_a_reader(bakehouse_server, tmp_path, monkeypatch)
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        if "file" in block.options:
            target = tmp_path / block.options["file"]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.body)
        elif block.language == "python":
            # Compiled under the page's name, so that a traceback points into the page.
            exec(compile("\n" * block.line + block.body, str(block.page), "exec"), names)
        elif block.language == "console":
            _run_commands(block)


def _as_a_reader(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shell of somebody who followed the quickstart: server started, address and key exported."""
    for name in list(os.environ):
        if name.startswith(("BAKEHOUSE_", "INFERENCE_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("INFERENCE_BASE_URL", server.base_url)
    monkeypatch.setenv("INFERENCE_API_KEY", server.key)
    monkeypatch.setenv("BAKEHOUSE_HOME", str(keep_builds(server.home)))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    (folder / "examples").symlink_to(ROOT / "examples")


def _run_commands(block: Block) -> None:
    for line in block.body.splitlines():
        command = line.removeprefix("$ ")
        if command == line or command.startswith(NOT_HERE):
            continue
        done = subprocess.run(["bash", "-ec", command], capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, f"{block.where}: $ {command}\n{done.stdout}{done.stderr}"


def test_the_list_of_operations_is_what_the_server_says(bakehouse_server: Server) -> None:
    page = (ROOT / "docs/http.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `([A-Z]+ /[^`]*)` \|", page, re.MULTILINE))
    paths = bakehouse_server.api.get("/openapi.json").json()["paths"]
    assert listed == {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}


def test_pages_with_code_are_found() -> None:
    names = {page.relative_to(ROOT).as_posix() for page in STORIES}
    assert {"README.md", "docs/quickstart.md", "docs/apps.md", "docs/client.md"} <= names
