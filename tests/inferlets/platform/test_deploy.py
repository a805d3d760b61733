"""A folder with a Pie.toml becomes an app: built, refused with the reason, built again where it was lost."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from inferlet.client import connect

from tests.conftest import StartServer
from tests.inferlets.platform.conftest import Package, kill_node, nodes_of
from tests.support.server import COMPLETED, ENTRY, DeployFailed, Server, pack
from tests.support.waiting import wait_until

MANIFEST = '[package]\nname = "tiny"\nversion = "0.1.0"\n'
MAIN = 'def main(input: dict):\n    return {"doubled": 2 * input["number"]}\n'


def project(folder: Path, manifest: str = MANIFEST, main: str = MAIN) -> Path:
    folder.mkdir()
    (folder / "Pie.toml").write_text(manifest)
    (folder / "main.py").write_text(main)
    return folder


def test_a_folder_is_built_and_runs(server: Server, tmp_path: Path) -> None:
    app = server.deploy(project(tmp_path / "tiny"))
    assert (app["ref"], app["version"]["label"], app["version"]["kernel"]) == ("local/tiny", "0.1.0", "inferlet")
    task = server.run("local/tiny@0.1.0", {"number": 21})
    assert (task["status"], task["output"]) == (COMPLETED, {"doubled": 42}), task["error"]
    again = server.deploy(tmp_path / "tiny")
    assert again["version"]["id"] == app["version"]["id"]
    _forget(server, "tiny")
    assert server.run("local/tiny", {"number": 1}, wait=120)["output"] == {"doubled": 2}


def _forget(server: Server, program: str) -> None:
    """As a disk that was lost: the node does not find the program at its next start."""
    (kept,) = (server.home / "inferlets" / "programs" / "owners").glob(f"*/{program}")
    shutil.rmtree(kept)
    kill_node(server)


def test_the_command_deploys_it_too(server: Server, package: Package) -> None:
    command = [sys.executable, "-c", ENTRY, "deploy", str(package("by-hand", "3.0.0")), "--json"]
    options = ["--url", server.base_url, "--key", server.key]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert server.run("by-hand@3.0.0", {"do": "nothing"})["status"] == COMPLETED


def test_what_cannot_work_is_refused_with_its_line_and_mended_under_the_same_version(
    server: Server, tmp_path: Path
) -> None:
    manifest = MANIFEST.replace("tiny", "mended")
    with pytest.raises(DeployFailed, match=r"main.py:2: .*socket"):
        server.deploy(project(tmp_path / "bad", manifest, "import json\nimport socket\n"))
    server.deploy(project(tmp_path / "good", manifest))
    assert server.run("mended@0.1.0", {"number": 4})["output"] == {"doubled": 8}


@pytest.mark.parametrize(
    ("manifest", "path"),
    [
        ('[package]\nname = "tiny"\n', "/Pie.toml/package/version"),
        ('[package]\nname = "Tiny"\nversion = "0.1.0"\n', "/Pie.toml/package/name"),
        (MANIFEST + "[extra]\n", "/Pie.toml/extra"),
        ("not toml", "/Pie.toml"),
    ],
)
def test_a_manifest_is_refused_before_anything_is_built(
    server: Server, tmp_path: Path, manifest: str, path: str
) -> None:
    record = server.upload(pack(project(tmp_path / "x", manifest)), "x.zip", "application/zip")
    answer = server.api.post("/apps", json={"version": {"package_uri": record["uri"]}})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["path"] == path


def test_a_version_keeps_its_content(server: Server, tmp_path: Path, package: Package) -> None:
    server.deploy(package("kept", "1.0.0"))
    other = server.upload(pack(package("kept", "1.0.0", 'description = "other"\n')), "x.zip", "application/zip")
    answer = server.api.post("/apps", json={"version": {"package_uri": other["uri"]}})
    assert answer.status_code == 409


def test_a_server_without_inferlets_says_so(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server()
    record = server.upload(pack(project(tmp_path / "x")), "x.zip", "application/zip")
    answer = server.api.post("/apps", json={"version": {"package_uri": record["uri"]}})
    assert answer.status_code == 400
    assert 'inferlets = "on"' in answer.json()["detail"]
    assert not nodes_of(server)


def programs_of(server: Server) -> list[str]:
    """What the node has installed for the server's first owner."""

    async def ask() -> list[str]:
        async with connect(server.base_url, token=server.key) as client:
            return [row["program"] for row in await client.programs()]

    return asyncio.run(ask())


def test_a_deleted_inferlet_leaves_no_program_also_where_the_node_was_down(server: Server, package: Package) -> None:
    both, again = package("going", "1.0.0"), package("going", "2.0.0")
    server.deploy(both)
    app = server.deploy(again)
    assert {"going@1.0.0", "going@2.0.0"} <= set(programs_of(server))
    running = server.data(server.api.post("/apps/run", json={"app": "going", "input": {"do": "echo"}}))
    wait_until(lambda: server.task(running["id"])["status_text"] == "running", "the task", 30)
    _delete(server, app)
    wait_until(lambda: not any("going" in name for name in programs_of(server)), "both to be removed", 30)
    server.data(server.api.post(f"/tasks/{running['id']}/inbox", json={"content": "stop"}))
    assert server.wait(running["id"])["output"] == {"result": "stopped"}

    app = server.deploy(both)
    kill_node(server)
    _delete(server, app)
    server.deploy(again)
    wait_until(lambda: "going@1.0.0" not in programs_of(server), "the old one to be removed", 30)
    assert "going@2.0.0" in programs_of(server)
    _delete(server, server.data(server.api.get("/apps/local/going")))


def _delete(server: Server, app: dict[str, Any]) -> None:
    server.data(server.api.delete(f"/apps/{app['id']}"))
