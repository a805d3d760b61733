"""Apps: deploy, list, look up, change, delete. Running one is with the tasks."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from bakehouse.api.common.auth import caller
from bakehouse.api.common.body import read_body
from bakehouse.api.common.envelope import Message, reply, warning
from bakehouse.api.common.lists import ListBody, page_data, read_list
from bakehouse.api.common.openapi import document, page_of
from bakehouse.api.common.services import services_of
from bakehouse.api.inferencesh.shapes_apps import (
    AppShape,
    ChangeApp,
    DeployedShape,
    NewApp,
    VersionShape,
    Visibility,
    app_shape,
    version_shape,
)
from bakehouse.core.app import App
from bakehouse.service.apps import AppChange, DeploySpec

router = APIRouter(tags=["apps"])


async def _whole(request: Request, app: App) -> dict[str, Any]:
    if app.current_version_id is None:
        return app_shape(app)
    return app_shape(app, await services_of(request).apps.version(app.current_version_id))


@router.post(
    "/apps",
    **document(
        "deployApp", "Make a version of a package and start its build", data=DeployedShape, body=NewApp,
        body_required=True, errors=(403, 409, 429),
    ),
)  # fmt: skip
async def deploy(request: Request) -> Response:
    who = await caller(request)
    body, messages = await read_body(request, NewApp)
    deployed = await services_of(request).apps.deploy(
        who,
        DeploySpec(
            package_uri=body.version.package_uri,
            namespace=body.namespace or None,
            name=body.name or None,
            title=body.title,
            description=body.description,
            preserve_current=bool(body.preserve_current_version),
        ),
    )
    data = app_shape(deployed.app, deployed.version)
    data["build_task_id"] = deployed.version.build_task_id
    return reply(request, data, messages=[*messages, *_remarks(body), *_manifest_warnings(deployed.warnings)])


def _remarks(body: NewApp) -> list[Message]:
    names = [*body.ignored(), *(f"version.{name}" for name in body.version.ignored())]
    return [
        warning("ignored_field", f"{name!r} was ignored: inf.yml and the code say it", field=name) for name in names
    ]


def _manifest_warnings(texts: list[str]) -> list[Message]:
    return [warning("manifest", text) for text in texts]


@router.post(
    "/apps/list", **document("listApps", "Your apps and every public one", data=page_of(AppShape), body=ListBody)
)
async def list_apps(request: Request) -> Response:
    who = await caller(request)
    wanted, messages = await read_list(request)
    page = await services_of(request).apps.list_apps(who, wanted)
    return reply(request, page_data(page, app_shape, wanted.limit), messages=messages)


@router.get("/apps/{app_id}", **document("getApp", "One app with its current version", data=AppShape, errors=(404,)))
async def get(request: Request, app_id: str) -> Response:
    app = await services_of(request).apps.get(await caller(request), app_id)
    return reply(request, await _whole(request, app))


@router.post(
    "/apps/{app_id}",
    **document("updateApp", "Change what is said about an app", data=AppShape, body=ChangeApp, errors=(403, 404)),
)
async def update(request: Request, app_id: str) -> Response:
    who = await caller(request)
    body, messages = await read_body(request, ChangeApp)
    app = await services_of(request).apps.update(who, app_id, body.change())
    return reply(request, await _whole(request, app), messages=messages)


@router.delete("/apps/{app_id}", **document("deleteApp", "Delete an app", data={"type": "object"}, errors=(403, 404)))
async def delete(request: Request, app_id: str) -> Response:
    await services_of(request).apps.delete(await caller(request), app_id)
    return reply(request, {"id": app_id, "deleted": True})


@router.post(
    "/apps/{app_id}/visibility",
    **document(
        "setAppVisibility", "Say who may run an app", data=AppShape, body=Visibility, body_required=True,
        errors=(403, 404),
    ),
)  # fmt: skip
async def visibility(request: Request, app_id: str) -> Response:
    who = await caller(request)
    body, messages = await read_body(request, Visibility)
    app = await services_of(request).apps.update(who, app_id, AppChange(visibility=body.visibility))
    return reply(request, await _whole(request, app), messages=messages)


@router.post(
    "/apps/{app_id}/versions/list",
    **document("listAppVersions", "Versions, newest first", data=page_of(VersionShape), body=ListBody, errors=(404,)),
)
async def list_versions(request: Request, app_id: str) -> Response:
    who = await caller(request)
    wanted, messages = await read_list(request)
    page = await services_of(request).apps.list_versions(who, app_id, wanted)
    return reply(request, page_data(page, version_shape, wanted.limit), messages=messages)


@router.get(
    "/apps/{app_id}/versions/{version_id}",
    **document("getAppVersion", "One version, by id, short id or label", data=VersionShape, errors=(404,)),
)
async def get_version(request: Request, app_id: str, version_id: str) -> Response:
    version = await services_of(request).apps.version_of(await caller(request), app_id, version_id)
    return reply(request, version_shape(version))


@router.put(
    "/apps/{app_id}/versions/{version_id}/current",
    **document("setCurrentVersion", "Let @latest mean this version", data=AppShape, errors=(403, 404, 409)),
)
async def make_current(request: Request, app_id: str, version_id: str) -> Response:
    app = await services_of(request).apps.make_current(await caller(request), app_id, version_id)
    return reply(request, await _whole(request, app))


# Last: the words above would fit it too.
@router.get("/apps/{namespace}/{name}", **document("getAppByName", "One app by its name", data=AppShape, errors=(404,)))
async def by_name(request: Request, namespace: str, name: str) -> Response:
    app = await services_of(request).apps.by_name(await caller(request), namespace, name)
    return reply(request, await _whole(request, app))
