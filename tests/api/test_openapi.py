"""schemathesis on our OpenAPI, authenticated: no operation answers 5xx or out of its schema, and each reaches a 2xx."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.conftest import StartServer
from tests.support.server import Server

APP = Path(__file__).parent.parent / "crash" / "app"
EXAMPLES = int(os.environ.get("BAKEHOUSE_FUZZ", "12"))
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@dataclass
class World:
    """A server with one of everything, and the means to make more of what an operation uses up."""

    server: Server
    app: dict[str, Any]
    task: dict[str, Any]
    file: dict[str, Any]
    schema: Any = field(default=None)

    def post(self, path: str, body: Any = None) -> Any:
        return Server.data(self.server.api.post(path, json=body))

    def run(self, **body: Any) -> dict[str, Any]:
        return self.server.run("crashtest:quick", {"n": 1}, **body)

    def sleeping_task(self) -> str:
        """A task that waits for next year."""
        body = {"app": "crashtest:quick", "input": {"n": 1}, "run_at": "2099-01-01T00:00:00Z"}
        return str(self.post("/apps/run", body)["id"])

    def new_file(self) -> dict[str, Any]:
        return self.server.upload(b"bytes", "some.bin")

    def new_app(self) -> str:
        """An app of its own, still building, which may be deleted."""
        package = self.post("/files", {"files": [{"uri": "", "filename": "x.zip"}]})[0]
        content = _package(os.urandom(4).hex())
        httpx.put(package["upload_url"], content=content).raise_for_status()
        return str(self.post("/apps", {"version": {"package_uri": package["uri"]}})["id"])

    def new_session(self) -> str:
        return str(self.run(session="new")["session_id"])


def _package(name: str) -> bytes:
    import io
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("inf.yml", f"name: app-{name}\n")
        archive.writestr("inference.py", (APP / "inference.py").read_text())
    return buffer.getvalue()


@pytest.fixture(scope="module")
def world(module_servers: StartServer) -> World:
    server = module_servers()
    app = server.deploy(APP)
    made = World(
        server, app, server.run("crashtest:quick", {"n": 1}), server.upload(b"hello", "hello.txt", "text/plain")
    )
    document = httpx.get(f"{server.base_url}/openapi.json").json()
    made.schema = schemathesis.openapi.from_dict(document)
    made.schema.config.update(base_url=server.base_url)
    return made


Good = Callable[[World], dict[str, Any]]


def _path(**values: Any) -> dict[str, Any]:
    return {"path_parameters": values}


def _version(w: World) -> str:
    return str(w.app["current_version_id"])


GOOD: dict[str, Good] = {
    "runApp": lambda w: {"body": {"app": "crashtest:quick", "input": {"n": 1}}},
    "getTask": lambda w: _path(task_id=w.task["id"]),
    "deleteTask": lambda w: _path(task_id=w.run()["id"]),
    "getTaskStatus": lambda w: _path(task_id=w.task["id"]),
    "streamTask": lambda w: _path(task_id=w.task["id"]),
    "cancelTask": lambda w: {**_path(task_id=w.sleeping_task()), "body": {}},
    "listTasks": lambda w: {"body": {}},
    "getTaskLogs": lambda w: _path(task_id=w.task["id"]),
    "getTaskTimings": lambda w: _path(task_id=w.task["id"]),
    "sendToTask": lambda w: {**_path(task_id=w.sleeping_task()), "body": {"content": {"a": 1}}},
    "listTaskFiles": lambda w: _path(task_id=w.task["id"]),
    "deleteTaskFiles": lambda w: _path(task_id=w.task["id"]),
    "createFiles": lambda w: {"body": {"files": [{"uri": "", "filename": "a.txt"}]}},
    "uploadFile": lambda w: _upload(w),  # noqa: PLW0108  defined below
    "fetchFile": lambda w: _path(capability=w.file["uri"].split("/")[-2], filename=w.file["uri"].split("/")[-1]),
    "listFiles": lambda w: {"body": {}},
    "getFile": lambda w: _path(file_id=w.file["id"]),
    "deleteFile": lambda w: _path(file_id=w.new_file()["id"]),
    "deployApp": lambda w: {"body": {"version": {"package_uri": w.server.upload(_package("one"), "a.zip")["uri"]}}},
    "listApps": lambda w: {"body": {}},
    "getApp": lambda w: _path(app_id=w.app["id"]),
    "updateApp": lambda w: {**_path(app_id=w.app["id"]), "body": {"title": "Crash test"}},
    "deleteApp": lambda w: _path(app_id=w.new_app()),
    "setAppVisibility": lambda w: {**_path(app_id=w.app["id"]), "body": {"visibility": "public"}},
    "listAppVersions": lambda w: {**_path(app_id=w.app["id"]), "body": {}},
    "getAppVersion": lambda w: _path(app_id=w.app["id"], version_id=_version(w)),
    "setCurrentVersion": lambda w: _path(app_id=w.app["id"], version_id=_version(w)),
    "getAppByName": lambda w: _path(namespace="local", name="crashtest"),
    "listSessions": lambda w: {},
    "getSession": lambda w: _path(session_id=w.new_session()),
    "endSession": lambda w: _path(session_id=w.new_session()),
    "keepSession": lambda w: _path(session_id=w.new_session()),
    "me": lambda w: {},
    "listApiKeys": lambda w: {"body": {}},
    "createApiKey": lambda w: {"body": {"name": "fuzz"}},
    "revokeApiKey": lambda w: _path(key_id=w.post("/apikeys", {"name": "gone soon"})["id"]),
    "listSecrets": lambda w: {"body": {}},
    "createSecret": lambda w: {"body": {"key": f"K{os.urandom(4).hex()}", "value": "v"}},
    "changeSecret": lambda w: {**_path(key=_secret(w)), "body": {"value": "other"}},
    "deleteSecret": lambda w: _path(key=_secret(w)),
    "health": lambda w: {},
    "ready": lambda w: {},
    "metrics": lambda w: {},
}  # fmt: skip


def _upload(world: World) -> dict[str, Any]:
    record = world.post("/files", {"files": [{"uri": "", "filename": "a.bin"}]})[0]
    url = httpx.URL(record["upload_url"])
    return {
        **_path(file_id=record["id"]),
        "query": dict(url.params),
        "body": b"x",
        "media_type": "application/octet-stream",
    }


def _secret(world: World) -> str:
    key = f"K{os.urandom(4).hex()}"
    world.post("/secrets", {"key": key, "value": "v"})
    return key


def _operations(schema: Any) -> dict[str, Any]:
    found = (result.ok() for result in schema.get_all_operations())
    return {operation.definition.raw["operationId"]: operation for operation in found}


def _headers(world: World) -> dict[str, str]:
    return {"Authorization": f"Bearer {world.server.key}"}


def test_the_table_names_every_operation(world: World) -> None:
    assert set(GOOD) == set(_operations(world.schema))


@pytest.mark.parametrize("name", GOOD)
def test_every_operation_reaches_a_2xx(world: World, name: str) -> None:
    case = _operations(world.schema)[name].Case(**GOOD[name](world))
    response = case.call(headers=_headers(world))
    assert 200 <= response.status_code < 300, response.text
    case.validate_response(response, checks=CHECKS)


@pytest.mark.parametrize("name", GOOD)
def test_no_input_makes_an_operation_fail(world: World, name: str) -> None:
    operation = _operations(world.schema)[name]
    known = {
        "task_id": [world.task["id"]], "file_id": [world.file["id"]], "app_id": [world.app["id"]],
        "version_id": [_version(world)], "namespace": ["local"], "name": ["crashtest"],
    } if not name.startswith(("delete", "end", "revoke")) else {}  # fmt: skip

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=operation.as_strategy(), real=st.booleans())
    def fuzz(case: Any, real: bool) -> None:
        for parameter in list(case.path_parameters or {}):
            if real and parameter in known:
                case.path_parameters[parameter] = known[parameter][0]
        case.call_and_validate(headers=_headers(world), checks=CHECKS)

    fuzz()
    assert world.server.api.get("/ready").status_code == 200
