"""Deployed apps: versions that never change, environments that are shared, schemas that guard the door."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import StartServer
from tests.e2e.support import RUNNING, refusal, send, until_logged
from tests.support.server import COMPLETED, DeployFailed, Server
from tests.support.waiting import wait_until

CODE = '''"""Says which version it is."""

import asyncio
from typing import Literal, Optional

from infsh import BaseApp, BaseAppInput, BaseAppOutput
from pydantic import Field


class Input(BaseAppInput):
    wait: float = 0.0
    many: list[int] = Field(default_factory=list, max_length=3)
    kind: Literal["a", "b"] = "a"
    note: Optional[str] = Field(None, description="What to say")


class Output(BaseAppOutput):
    version: int
    calls: int


class App(BaseApp):
    def setup(self):
        self.calls = 0

    async def run(self, app_input: Input) -> Output:
        """Answers."""
        self.calls += 1
        print("in the call")
        await asyncio.sleep(app_input.wait)
        return Output(version=VERSION, calls=self.calls)
'''


@pytest.fixture(scope="module")
def server(module_servers: StartServer) -> Server:
    return module_servers()


def deploy(
    server: Server, folder: Path, version: int, manifest: str = "name: versioned\n", **fields: Any
) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    (folder / "inf.yml").write_text(manifest)
    (folder / "requirements.txt").write_text("")
    (folder / "inference.py").write_text(CODE.replace("VERSION", str(version)))
    return server.deploy(folder, **fields)


def version_of(app: dict[str, Any]) -> str:
    return str(app["version"]["short_id"])


def test_versions_stay_what_they_are(server: Server, tmp_path: Path) -> None:
    first, second = (deploy(server, tmp_path / f"v{n}", n) for n in (1, 2))
    assert first["id"] == second["id"] and version_of(first) != version_of(second)
    assert server.run("versioned")["output"]["version"] == 2
    assert server.run("versioned@latest")["output"]["version"] == 2
    for app, number in ((first, 1), (second, 2)):
        task = server.run(f"local/versioned@{version_of(app)}")
        assert task["output"]["version"] == number
        assert task["app"] == f"local/versioned@{version_of(app)}"
    again = deploy(server, tmp_path / "v1", 1)
    assert version_of(again) == version_of(first), "the same content is the same version"
    assert server.api.post("/apps/run", json={"app": "versioned@nothing", "input": {}}).status_code == 404


def test_one_environment_serves_all_versions_with_the_same_requirements(server: Server, tmp_path: Path) -> None:
    deploy(server, tmp_path / "v1", 10, "name: shared-env\n")
    found = sorted((server.home / "envs").rglob("pyvenv.cfg"))
    deploy(server, tmp_path / "v2", 11, "name: shared-env\n")
    assert sorted((server.home / "envs").rglob("pyvenv.cfg")) == found and len(found) == 1


def test_a_deploy_does_not_touch_running_tasks_and_sessions(server: Server, tmp_path: Path) -> None:
    manifest = "name: moving\n"
    deploy(server, tmp_path / "v1", 1, manifest)
    running = send(server, "moving", {"wait": 60})
    until_logged(server, running["id"], "in the call")
    session = server.run("moving", session="new")["session_id"]
    deploy(server, tmp_path / "v2", 2, manifest)
    assert server.run("moving")["output"]["version"] == 2
    assert server.run("moving", session=session)["output"] == {"version": 1, "calls": 2}
    assert server.task(running["id"])["status"] == RUNNING
    for path, method in ((f"/tasks/{running['id']}/cancel", "POST"), (f"/sessions/{session}", "DELETE")):
        server.data(server.api.request(method, path))


def test_a_label_names_one_content_for_ever(server: Server, tmp_path: Path) -> None:
    manifest = "name: labelled\nversion: 1.0.0\n"
    deploy(server, tmp_path / "v1", 1, manifest)
    assert server.run("labelled@1.0.0")["output"]["version"] == 1
    with pytest.raises(AssertionError, match="409"):
        deploy(server, tmp_path / "v2", 2, manifest)
    assert server.run("labelled@1.0.0")["output"]["version"] == 1


def test_a_broken_deploy_leaves_the_app_as_it_was(server: Server, tmp_path: Path) -> None:
    manifest = "name: sturdy\n"
    deploy(server, tmp_path / "v1", 1, manifest)
    broken = tmp_path / "broken"
    broken.mkdir()
    for name, text in (("inf.yml", manifest), ("requirements.txt", ""), ("inference.py", "import nowhere_to_be_found")):
        (broken / name).write_text(text)
    with pytest.raises(DeployFailed, match="nowhere_to_be_found"):
        server.deploy(broken)
    assert server.run("sturdy")["output"]["version"] == 1


def test_wrong_inputs_are_answered_at_once_with_their_paths_and_never_queued(server: Server, tmp_path: Path) -> None:
    app = deploy(server, tmp_path / "v1", 1, "name: guarded\n")
    wrong = {"wait": "long", "many": [1, "x"], "kind": "c"}
    answer = server.api.post("/apps/run", json={"app": "guarded", "input": wrong})
    assert answer.status_code == 400
    text = str(refusal(answer))
    assert all(path in text for path in ("/input/wait", "/input/many/1", "/input/kind"))
    assert server.api.post("/apps/run", json={"app": "guarded", "input": {"many": [1] * 4}}).status_code == 400
    listed = Server.data(server.api.post("/tasks/list", json={"limit": 100}))["items"]
    assert not [task for task in listed if task["app_id"] == app["id"] and task["kind"] == "app"]
    functions = app["version"]["functions"]
    (function,) = functions.values() if isinstance(functions, dict) else functions
    assert function["input_schema"]["properties"]["note"]["description"] == "What to say"


def test_a_deleted_app_is_gone_its_tasks_stay_and_its_name_is_free(server: Server, tmp_path: Path) -> None:
    app = deploy(server, tmp_path / "v1", 1, "name: doomed\n")
    finished = server.run("doomed")
    waiting = send(server, "doomed", run_at="2100-01-01T00:00:00Z")
    server.data(server.api.delete(f"/apps/{app['id']}"))
    assert server.api.post("/apps/run", json={"app": "doomed", "input": {}}).status_code == 404
    assert server.task(finished["id"])["output"] == finished["output"]
    server.data(server.api.post(f"/tasks/{waiting['id']}/cancel"))
    again = deploy(server, tmp_path / "v2", 2, "name: doomed\n")
    assert again["id"] != app["id"]
    assert server.run("doomed")["output"]["version"] == 2


def test_the_build_s_log_streams_while_it_builds(server: Server, tmp_path: Path) -> None:
    app = deploy(server, tmp_path / "v1", 77, "name: built\n")
    build = server.task(app["version"].get("build_task_id") or app["build_task_id"])
    assert (build["kind"], build["status"]) == ("build", COMPLETED) and build["logs"]
    assert server.api.get(f"/tasks/{build['id']}/stream", headers={"Accept": "application/x-ndjson"}).status_code == 200


def test_an_instance_of_an_old_version_goes_when_it_is_idle(module_servers: StartServer, tmp_path: Path) -> None:
    server = module_servers(env={"BAKEHOUSE_IDLE_TIMEOUT": "1"})
    deploy(server, tmp_path / "v1", 1)
    assert server.run("versioned")["status"] == COMPLETED
    wait_until(lambda: not list((server.home / "instances").iterdir()), "the idle instance and its files to go", 20)
