"""Our OpenAPI document against a real server: a request that works for every operation, and generated ones for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import hypothesis
import jsonschema_rs
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from bakehouse.api.app import create_app
from bakehouse.api.common.services import Services
from tests.support.server import Server, pack

NOTHING = cast(Any, None)
DOCUMENT = create_app(
    Services(
        tasks=NOTHING, streams=NOTHING, apps=NOTHING, files=NOTHING, sessions=NOTHING, secrets=NOTHING, keys=NOTHING,
        public_url="http://bake.test", webhook_secret=str,
    )
).openapi()  # fmt: skip
OPERATIONS = {
    operation["operationId"]: (method, path)
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
}
CODE = """
from infsh import BaseApp, BaseAppInput, BaseAppOutput

class Input(BaseAppInput):
    text: str = ""

class Output(BaseAppOutput):
    text: str

class App(BaseApp):
    async def run(self, app_input: Input) -> Output:
        return Output(text=app_input.text)
"""


@dataclass
class Scene:
    """A server with one of everything."""

    server: Server
    folder: Path
    app: dict[str, Any]
    task: dict[str, Any]
    session: str

    def data(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        answer = self.server.api.request(method, path, json=body, headers=headers)
        assert answer.is_success, answer.text
        return answer.json()["data"]

    def run(self, **body: Any) -> dict[str, Any]:
        return dict(self.data("POST", "/apps/run", {"app": "echo", **body}, prefer="wait=60"))

    def file(self) -> dict[str, Any]:
        return self.server.upload(b"content", "a.txt", "text/plain")

    def key(self) -> str:
        return str(self.data("POST", "/apikeys", {"name": "made to be ended"})["id"])

    def secret(self, key: str) -> str:
        return str(self.data("POST", "/secrets", {"key": key, "value": "x"})["key"])

    def waiting_task(self) -> str:
        return str(self.data("POST", "/apps/run", {"app": "echo", "run_at": "2999-01-01T00:00:00Z"})["id"])

    def deployed(self, name: str) -> dict[str, Any]:
        return self.server.deploy(_app(self.folder / name, name))

    def upload_path(self) -> str:
        (record,) = self.data("POST", "/files", {"files": [{"uri": ""}]})
        return str(record["upload_url"]).removeprefix(self.server.base_url)

    def package(self) -> str:
        return str(self.server.upload(pack(_app(self.folder / "again", "again")), "a.zip")["uri"])


def _app(folder: Path, name: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "inf.yml").write_text(f"name: {name}\n")
    (folder / "inference.py").write_text(CODE)
    return folder


@pytest.fixture(scope="module")
def scene(bakehouse_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder = tmp_path_factory.mktemp("apps")
    app = bakehouse_server.deploy(_app(folder / "echo", "echo"))
    scene = Scene(bakehouse_server, folder, app, {}, "")
    scene.task = scene.run(input={"text": "hello"}, session="new")
    scene.session = scene.task["session_id"]
    scene.secret("TOKEN")
    return scene


Request = tuple[str, Any]
WORKING: dict[str, Callable[[Scene], Request]] = {
    "health": lambda s: ("/health", None),
    "ready": lambda s: ("/ready", None),
    "metrics": lambda s: ("/metrics", None),
    "runApp": lambda s: ("/apps/run", {"app": "local/echo", "input": {"text": "x"}}),
    "getTask": lambda s: (f"/tasks/{s.task['id']}", None),
    "getTaskStatus": lambda s: (f"/tasks/{s.task['id']}/status", None),
    "streamTask": lambda s: (f"/tasks/{s.task['id']}/stream", None),
    "cancelTask": lambda s: (f"/tasks/{s.task['id']}/cancel", {}),
    "deleteTask": lambda s: (f"/tasks/{s.run()['id']}", None),
    "listTasks": lambda s: ("/tasks/list", {"limit": 2}),
    "getTaskLogs": lambda s: (f"/tasks/{s.task['id']}/logs", None),
    "getTaskTimings": lambda s: (f"/tasks/{s.task['id']}/timings", None),
    "sendToTask": lambda s: (f"/tasks/{s.waiting_task()}/inbox", {"content": {"a": 1}}),
    "listTaskFiles": lambda s: (f"/tasks/{s.task['id']}/files", None),
    "deleteTaskFiles": lambda s: (f"/tasks/{s.run()['id']}/files", None),
    "createFiles": lambda s: ("/files", {"files": [{"filename": "a.txt"}]}),
    "uploadFile": lambda s: (s.upload_path(), b"content"),
    "fetchFile": lambda s: (s.file()["uri"], None),
    "listFiles": lambda s: ("/files/list", None),
    "getFile": lambda s: (f"/files/{s.file()['id']}", None),
    "deleteFile": lambda s: (f"/files/{s.file()['id']}", None),
    "deployApp": lambda s: ("/apps", {"version": {"package_uri": s.package()}}),
    "listApps": lambda s: ("/apps/list", {"search": {"term": "ech"}}),
    "getApp": lambda s: (f"/apps/{s.app['id']}", None),
    "getAppByName": lambda s: ("/apps/local/echo", None),
    "updateApp": lambda s: (f"/apps/{s.app['id']}", {"title": "Echo"}),
    "deleteApp": lambda s: (f"/apps/{s.deployed('doomed')['id']}", None),
    "setAppVisibility": lambda s: (f"/apps/{s.app['id']}/visibility", {"visibility": "private"}),
    "listAppVersions": lambda s: (f"/apps/{s.app['id']}/versions/list", None),
    "getAppVersion": lambda s: (f"/apps/{s.app['id']}/versions/{s.app['version_id']}", None),
    "setCurrentVersion": lambda s: (f"/apps/{s.app['id']}/versions/{s.app['version_id']}/current", None),
    "listSessions": lambda s: ("/sessions", None),
    "getSession": lambda s: (f"/sessions/{s.session}", None),
    "keepSession": lambda s: (f"/sessions/{s.session}/keepalive", None),
    "endSession": lambda s: (f"/sessions/{s.run(session='new')['session_id']}", None),
    "me": lambda s: ("/me", None),
    "listApiKeys": lambda s: ("/apikeys/list", None),
    "createApiKey": lambda s: ("/apikeys", {"name": "x", "scopes": ["run"]}),
    "revokeApiKey": lambda s: (f"/apikeys/{s.key()}", None),
    "listSecrets": lambda s: ("/secrets/list", None),
    "createSecret": lambda s: ("/secrets", {"key": "FRESH", "value": "x"}),
    "changeSecret": lambda s: ("/secrets/TOKEN", {"value": "y"}),
    "deleteSecret": lambda s: (f"/secrets/{s.secret('DOOMED')}", None),
}
"""A request that succeeds, for every operation: path and body."""


def test_the_table_is_complete() -> None:
    assert set(WORKING) == set(OPERATIONS)


def test_every_operation_is_documented() -> None:
    for method, path in OPERATIONS.values():
        operation = DOCUMENT["paths"][path][method]
        assert operation["summary"]
        assert operation["tags"], path
        assert "401" in operation["responses"] or operation.get("security") == [], path


@pytest.mark.parametrize("name", sorted(WORKING))
def test_it_answers_as_documented(scene: Scene, name: str) -> None:
    method, template = OPERATIONS[name]
    path, body = WORKING[name](scene)
    sent = {"content": body} if isinstance(body, bytes) else {"json": body}
    answer = scene.server.api.request(method, path, **sent)
    assert answer.is_success, answer.text
    content = DOCUMENT["paths"][template][method]["responses"][str(answer.status_code)]["content"]
    media = answer.headers["content-type"].partition(";")[0]
    assert media in content or "*/*" in content
    if media == "application/json":
        schema = {**content[media]["schema"], "components": DOCUMENT["components"]}
        jsonschema_rs.validator_for(schema).validate(answer.json())


SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
REAL_IDS = {"app_id", "task_id", "session_id", "namespace", "name", "version_id"}
FRAMING = {"content-length", "transfer-encoding", "connection", "expect", "host", "upgrade"}
"""Headers of HTTP itself: a wrong one is refused by the HTTP server, in plain text, before there is a request."""
DESTRUCTIVE = {"deleteTask", "deleteApp", "endSession", "deleteTaskFiles", "setAppVisibility", "updateApp"}


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_nothing_breaks_it(scene: Scene, name: str, mode: GenerationMode) -> None:
    method, path = OPERATIONS[name]
    operation = SCHEMA[path][method.upper()]
    real = {
        "app_id": scene.app["id"], "task_id": scene.task["id"], "session_id": scene.session, "namespace": "local",
        "name": "echo", "version_id": scene.app["version_id"],
    }  # fmt: skip

    @hypothesis.settings(
        max_examples=20, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
    )
    @hypothesis.given(case=operation.as_strategy(mode), genuine=hypothesis.strategies.booleans())
    def check(case: schemathesis.Case, genuine: bool) -> None:
        if genuine and name not in DESTRUCTIVE and case.path_parameters:
            # Made-up ids would never get past the look-up.
            case.path_parameters.update({k: v for k, v in real.items() if k in case.path_parameters})
        answer = case.call(
            base_url=scene.server.base_url, headers={"Authorization": f"Bearer {scene.server.key}"}, timeout=30
        )
        case.validate_response(answer, checks=CHECKS)

    try:
        check()
    except unsupported():
        assert mode is GenerationMode.NEGATIVE, "only wrong requests may be impossible: some operations take anything"
    except (Failure, FailureGroup) as failure:
        raise AssertionError(f"{name}: {failure}") from failure


def unsupported() -> type[Exception]:
    """What schemathesis raises for an operation that has nothing to get wrong."""
    return hypothesis.errors.Unsatisfiable
