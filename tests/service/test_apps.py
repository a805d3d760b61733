"""Apps: deploy, build outcomes, references, visibility."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import orjson
import pytest

from bakehouse.core.app import Version
from bakehouse.core.errors import Conflict, Forbidden, Invalid, NotConfigured, NotFound
from bakehouse.core.identity import Caller
from bakehouse.core.task import Event, Task, TaskStatus, TaskWrite
from bakehouse.service.apps import AppChange, DeploySpec, Removal
from bakehouse.service.lists import ListQuery
from tests.support.platform import Platform, package


async def ready(here: Platform, manifest: str = "name: echo", code: str = "pass", owner: str = "local") -> Version:
    return await here.built(await here.deploy(await here.caller(owner), manifest, code))


async def test_a_deploy_makes_a_version_and_a_build(here: Platform) -> None:
    who = await here.caller()
    version = await here.deploy(who, "name: echo\nversion: 1.2.3")
    assert (version.status, version.label, version.short_id) == ("building", "1.2.3", version.id[-8:])
    (task,) = here.builds
    assert (task.id, task.version_id, task.kind) == (version.build_task_id, version.id, "build")
    with pytest.raises(Conflict, match="being built"):
        await here.apps.resolve(who, ref="echo@1.2.3")
    with pytest.raises(Conflict, match="no version that is ready"):
        await here.apps.resolve(who, ref="echo")
    await here.built(version)
    for ref in ("echo", "local/echo", "app/local/echo@latest", "echo@1.2.3", f"echo@{version.short_id}:run"):
        app, found = await here.apps.resolve(who, ref=ref)
        assert (app.name, found.id, found.status) == ("echo", version.id, "ready")


async def test_three_ways_to_name_one(here: Platform) -> None:
    who, version = await here.caller(), await ready(here)
    other = await ready(here, "name: other")
    assert (await here.apps.resolve(who, app_id=version.app_id))[1].id == version.id
    assert (await here.apps.resolve(who, version_id=version.id))[0].id == version.app_id
    assert (await here.apps.resolve(who, ref="echo", version_id=version.id))[1].id == version.id
    with pytest.raises(NotFound):
        await here.apps.resolve(who, ref="echo", version_id=other.id)
    with pytest.raises(Invalid):
        await here.apps.resolve(who, ref="echo", app_id=other.app_id)


@pytest.mark.parametrize("ref", ["nothing", "echo@nothing", "nobody/echo"])
async def test_what_is_missing(here: Platform, ref: str) -> None:
    await ready(here)
    with pytest.raises(NotFound):
        await here.apps.resolve(await here.caller(), ref=ref)


async def test_a_version_keeps_its_package(here: Platform) -> None:
    who = await here.caller()
    uri = await here.upload(who, package("name: echo"))
    version = (await here.apps.deploy(who, DeploySpec(uri))).version
    uploaded = await here.files.by_uri(uri)
    assert uploaded is not None
    await here.files.delete(who, uploaded.id)
    kept = await here.files.get(who, version.package_file_id)
    assert (await here.files.local(kept)).read_bytes() == package("name: echo")
    with pytest.raises(Conflict):
        await here.files.delete(who, kept.id)
    assert (await here.files.list_files(who, ListQuery())).items == []


async def test_the_same_content_is_the_same_version(here: Platform) -> None:
    who, version = await here.caller(), await ready(here)
    again = await here.deploy(who, "name: echo")
    assert (again.id, again.status, len(here.builds)) == (version.id, "ready", 1)


@pytest.mark.parametrize("database", ["sqlite", "postgres"], indirect=True)
async def test_a_failed_build_can_be_tried_again(here: Platform) -> None:
    who = await here.caller()
    first = await here.deploy(who, "name: echo")
    await here.apps.version_built(replace(first, status="failed", error="no network"))
    with pytest.raises(Conflict, match="no network"):
        await here.apps.resolve(who, ref=f"echo@{first.short_id}")
    second = await here.deploy(who, "name: echo")
    assert second.status == "building"
    assert [task.id for task in here.builds] == [first.build_task_id, second.build_task_id]
    await here.built(second)
    assert (await here.apps.resolve(who, ref="echo"))[1].id == second.id


async def test_a_label_names_one_content(here: Platform) -> None:
    await ready(here, "name: echo\nversion: one")
    with pytest.raises(Conflict):
        await here.deploy(await here.caller(), "name: echo\nversion: one", "x = 1")


async def test_latest_is_the_newest_unless_asked_otherwise(here: Platform) -> None:
    who, first = await here.caller(), await ready(here)
    second = await here.deploy(who, "name: echo", "x = 2", preserve=True)
    await here.built(second)
    assert (await here.apps.resolve(who, ref="echo"))[1].id == first.id
    third = await here.deploy(who, "name: echo", "x = 3")
    fourth = await ready(here, code="x = 4")
    await here.built(third)  # its build took longer
    assert (await here.apps.resolve(who, ref="echo"))[1].id == fourth.id
    await here.apps.make_current(who, first.app_id, second.short_id)
    assert (await here.apps.resolve(who, ref="echo"))[1].id == second.id
    await here.deploy(who, "name: echo")
    assert (await here.apps.resolve(who, ref="echo"))[1].id == first.id, "content that is deployed again is current"


async def test_who_may_deploy_what(here: Platform) -> None:
    with pytest.raises(Forbidden):
        await here.deploy(await here.caller("local", "run"), "name: echo")
    deployer = await here.caller("local", "deploy")
    with pytest.raises(Forbidden, match="namespace"):
        await here.deploy(deployer, "name: echo\nnamespace: other")
    uri = await here.upload(await here.caller("other"), package("name: echo"))
    for wrong in (uri, "http://elsewhere.test/x.zip", uri + "x"):
        with pytest.raises(Invalid) as caught:
            await here.apps.deploy(deployer, DeploySpec(wrong))
        assert caught.value.fields[0]["path"] == "/version/package_uri"


@pytest.mark.parametrize(
    ("manifest", "path"),
    [
        ("name: echo\nresources: {gpu: {count: 1}}", "/inf.yml/resources/gpu/count"),
        ("name: echo\nretries: many", "/inf.yml/retries"),
        ("name: license", "/inf.yml/name"),
    ],
)
async def test_what_a_manifest_may_not_say(here: Platform, manifest: str, path: str) -> None:
    with pytest.raises(Invalid) as caught:
        await here.deploy(await here.caller(), manifest)
    assert caught.value.fields[0]["path"] == path
    assert here.builds == []


async def test_private_apps_are_nobody_else_s(here: Platform) -> None:
    mine, other, version = await here.caller(), await here.caller("other"), await ready(here)
    asked = [
        here.apps.resolve(other, ref="local/echo"), here.apps.resolve(other, app_id=version.app_id),
        here.apps.resolve(other, version_id=version.id), here.apps.get(other, version.app_id),
        here.apps.by_name(other, "local", "echo"), here.apps.list_versions(other, version.app_id, ListQuery()),
        here.apps.version_of(other, version.app_id, version.id), here.apps.delete(other, version.app_id),
    ]  # fmt: skip
    for question in asked:
        with pytest.raises(NotFound):
            await question
    assert (await here.apps.list_apps(other, ListQuery())).items == []
    await here.apps.update(mine, version.app_id, AppChange(visibility="public"))
    assert (await here.apps.resolve(other, ref="local/echo"))[1].id == version.id
    assert [app.id for app in (await here.apps.list_apps(other, ListQuery())).items] == [version.app_id]
    for change in (
        here.apps.delete(other, version.app_id),
        here.apps.update(other, version.app_id, AppChange(title="x")),
        here.apps.make_current(other, version.app_id, version.id),
    ):
        with pytest.raises(NotFound):
            await change


async def test_a_deploy_keeps_what_was_published_by_hand(here: Platform) -> None:
    who, version = await here.caller(), await ready(here)
    await here.apps.update(who, version.app_id, AppChange(visibility="public", title="Echo"))
    await ready(here, "name: echo\ndescription: says it again", "x = 1")
    app = await here.apps.get(who, version.app_id)
    assert (app.visibility, app.title, app.description) == ("public", "Echo", "says it again")


async def test_a_deleted_app_is_gone_and_its_name_is_free(here: Platform) -> None:
    who, version = await here.caller(), await ready(here)
    await here.apps.delete(who, version.app_id)
    with pytest.raises(NotFound):
        await here.apps.resolve(who, ref="echo")
    again = await ready(here)
    assert again.app_id != version.app_id
    assert (await here.apps.resolve(who, ref="echo"))[1].id == again.id


async def test_a_crash_between_version_and_build_is_repaired(here: Platform) -> None:
    who = await here.caller()

    async def crash(caller: Caller, **fields: object) -> Task:
        raise SystemExit

    submit, here.apps.submit = here.apps.submit, cast(Any, crash)
    with pytest.raises(SystemExit):
        await here.deploy(who, "name: echo")
    here.apps.submit = submit
    await here.apps.recover()
    (task,) = here.builds
    version = await here.apps.version(task.version_id or "")
    assert version.build_task_id == task.id
    await here.apps.recover()
    assert len(here.builds) == 1, "a build that waits is left alone"


async def test_a_build_that_cannot_begin_can_be_asked_for_again(here: Platform) -> None:
    who = await here.caller()
    submit, here.apps.submit = here.apps.submit, None
    with pytest.raises(NotConfigured):
        await here.deploy(who, "name: echo")
    here.apps.submit = submit
    again = await here.deploy(who, "name: echo")
    assert (again.status, len(here.builds)) == ("building", 1)


async def test_an_app_that_is_deleted_during_its_build(here: Platform) -> None:
    who = await here.caller()
    version = await here.deploy(who, "name: echo")
    await here.apps.delete(who, version.app_id)
    await here.built(version)
    with pytest.raises(NotFound):
        await here.apps.resolve(who, ref="echo")
    # The upload stays its owner's; the version's copy went with the app.
    assert len(await here.blobs.keys()) == 1


async def test_what_a_build_leaves_that_ends_while_its_app_is_deleted_is_noted(here: Platform) -> None:
    who = await here.caller()
    version = await here.deploy(who, "name: echo")
    noted: list[tuple[str, str]] = []

    class Notes(Removal):
        async def note(self, versions: Sequence[Version]) -> None:
            noted.extend((found.id, found.status) for found in versions)
            if len(noted) == 1:
                await here.built(version)

        def begin(self) -> None:
            noted.append(("begin", ""))

    here.apps.removal = Notes()
    await here.apps.delete(who, version.app_id)
    assert noted == [(version.id, "building"), (version.id, "ready"), ("begin", "")]


async def test_a_build_that_ended_without_its_version_fails_it(here: Platform) -> None:
    version = await here.deploy(await here.caller(), "name: echo")
    (task,) = here.builds
    (claimed,) = await here.store.claim([task.id], "holder")
    event = Event(claimed.last_seq + 1, here.clock.now(), "status", TaskStatus.FAILED, claimed.attempt)
    await here.store.write(
        TaskWrite(task.id, claimed.attempt, (event,), status=TaskStatus.FAILED, error="lost twice", error_code="lost")
    )
    await here.apps.recover()
    failed = await here.apps.version(version.id)
    assert (failed.status, failed.error) == ("failed", "lost twice")


async def test_build_tasks_say_what_they_build(here: Platform) -> None:
    version = await here.deploy(await here.caller(), "name: echo")
    assert orjson.loads(here.builds[0].input) == {"version_id": version.id, "app": "local/echo", "make_current": True}
