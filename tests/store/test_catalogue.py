"""Owners, keys, secrets, apps, versions, files and sessions."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from bakehouse.core.app import Version
from bakehouse.core.errors import Conflict, Gone, NotFound
from bakehouse.core.file import TaskFile
from bakehouse.core.identity import Caller, Key
from bakehouse.core.ids import new_id
from bakehouse.store.base import ListQuery
from bakehouse.store.sql import SqlStore
from tests.store.samples import NOW, claimed, make_app, make_file, make_session, make_version, queued

# ---- identity -------------------------------------------------------------------------------------------------


async def test_an_owner_is_made_once(store: SqlStore) -> None:
    made = await asyncio.gather(*(store.ensure_owner("local", NOW) for _ in range(5)))
    assert len({owner.id for owner in made}) == 1
    assert await store.owner(name="local") == await store.owner(id=made[0].id) == made[0]
    with pytest.raises(NotFound):
        await store.owner(name="other")


async def test_users_are_named_per_owner(store: SqlStore) -> None:
    one, two = await store.ensure_owner("one", NOW), await store.ensure_owner("two", NOW)
    users = [await store.ensure_user(owner.id, "ann", NOW) for owner in (one, one, two)]
    assert users[0] == users[1] != users[2]
    with pytest.raises(NotFound):
        await store.ensure_user("owner_none", "ann", NOW)


def make_key(owner_id: str, **fields: Any) -> Key:
    key_id = new_id("key")
    return dataclasses.replace(
        Key(key_id, owner_id, "user_a", "first", "bk_ab", f"hash {key_id}", ("run", "deploy"), NOW), **fields
    )


async def test_a_key_says_who_calls(store: SqlStore) -> None:
    assert not await store.has_keys()
    owner = await store.ensure_owner("local", NOW)
    key, short = make_key(owner.id), make_key(owner.id, expires_at=NOW + 5)
    await store.create_key(key)
    await store.create_key(short)
    assert await store.has_keys()
    caller = Caller(owner.id, "local", "user_a", key.id, frozenset({"run", "deploy"}))
    assert await store.caller_for(key.hash, NOW) == caller
    assert await store.caller_for(short.hash, NOW + 4) is not None
    assert await store.caller_for(short.hash, NOW + 5) is None
    assert await store.caller_for("unknown", NOW) is None
    assert {listed.id: listed for listed in await store.list_keys(owner.id)} == {key.id: key, short.id: short}


async def test_a_revoked_key_says_nothing(store: SqlStore) -> None:
    owner = await store.ensure_owner("local", NOW)
    key = make_key(owner.id)
    await store.create_key(key)
    with pytest.raises(NotFound):
        await store.revoke_key(key.id, "owner_other", NOW)
    await store.revoke_key(key.id, owner.id, NOW + 1)
    await store.revoke_key(key.id, owner.id, NOW + 2)
    assert await store.caller_for(key.hash, NOW) is None
    assert (await store.list_keys(owner.id))[0].revoked_at == NOW + 1


async def test_a_key_hash_is_unique(store: SqlStore) -> None:
    key = make_key("owner_a")
    await store.create_key(key)
    with pytest.raises(Conflict):
        await store.create_key(make_key("owner_a", hash=key.hash))


async def test_secrets_and_their_revision(store: SqlStore) -> None:
    owner = await store.ensure_owner("local", NOW)
    assert await store.secrets_revision(owner.id) == 0
    await store.put_secret(owner.id, "B", b"\x00\xff", "second", NOW)
    await store.put_secret(owner.id, "A", b"1", "first", NOW)
    await store.put_secret(owner.id, "A", b"2", "changed", NOW + 1)
    assert await store.secrets(owner.id) == [("A", b"2", "changed", NOW + 1), ("B", b"\x00\xff", "second", NOW)]
    assert await store.secrets_revision(owner.id) == 3
    await store.delete_secret(owner.id, "A")
    with pytest.raises(NotFound):
        await store.delete_secret(owner.id, "A")
    assert await store.secrets_revision(owner.id) == 4
    with pytest.raises(NotFound):
        await store.put_secret("owner_none", "A", b"1", "", NOW)


# ---- apps -----------------------------------------------------------------------------------------------------


async def test_a_version_comes_back_as_it_was(store: SqlStore) -> None:
    app, version = await store.create_version(make_app(metadata={"a": [1]}), make_version(make_app(), label="1.0.0"))
    assert await store.get_app(id=app.id) == await store.get_app(namespace="local", name="echo") == app
    assert version.app_id == app.id
    for names in (
        {"id": version.id},
        {"app_id": app.id, "name": version.short_id},
        {"app_id": app.id, "name": "1.0.0"},
    ):
        assert await store.get_version(**names) == version
    assert await store.versions_building() == [version]
    built = dataclasses.replace(version, status="ready", env_key="e", setup_schema={"x": 1}, default_function="go")
    await store.finish_version(built, make_current=True)
    assert await store.get_version(id=version.id) == built
    assert (await store.get_app(id=app.id)).current_version_id == version.id
    assert await store.versions_building() == []


async def test_the_same_content_is_one_version(store: SqlStore) -> None:
    app, first = await store.create_version(make_app(), make_version(make_app()))
    again, same = await store.create_version(
        make_app(description="new words"), make_version(make_app(), label="2.0.0", build_task_id="task_x")
    )
    assert (again.id, again.description, same.id, same.label) == (app.id, "new words", first.id, "2.0.0")
    assert same.build_task_id is None
    _, other = await store.create_version(make_app(), make_version(make_app(), "d2"))
    assert other.id != first.id
    assert len((await store.list_versions(app.id, ListQuery())).items) == 2


async def test_a_failed_version_is_built_again(store: SqlStore) -> None:
    _, first = await store.create_version(make_app(), make_version(make_app()))
    await store.finish_version(dataclasses.replace(first, status="failed", error="no"), make_current=False)
    retry = make_version(make_app(), package_file_id="file_b", build_task_id="task_b")
    _, again = await store.create_version(make_app(), retry)
    assert again == dataclasses.replace(
        retry, id=first.id, short_id=first.short_id, app_id=first.app_id, status="building"
    )
    assert await store.get_version(id=first.id) == again


async def test_a_label_names_one_content(store: SqlStore) -> None:
    await store.create_version(make_app(), make_version(make_app(), label="1.0.0"))
    with pytest.raises(Conflict):
        await store.create_version(make_app(), make_version(make_app(), "d2", label="1.0.0"))
    _, other = await store.create_version(make_app(name="other"), make_version(make_app(), "d2", label="1.0.0"))
    assert other.label == "1.0.0"


async def test_the_label_of_a_failed_version_is_free_again(store: SqlStore) -> None:
    app, first = await store.create_version(make_app(), make_version(make_app(), label="1.0.0"))
    await store.finish_version(dataclasses.replace(first, status="failed"), make_current=False)
    _, mended = await store.create_version(app, make_version(app, "d2", label="1.0.0"))
    assert (await store.get_version(app_id=app.id, name="1.0.0")).id == mended.id
    assert (await store.get_version(id=first.id)).label is None
    with pytest.raises(Conflict):
        await store.create_version(app, make_version(app, label="1.0.0"))


async def test_a_taken_short_id_becomes_longer(store: SqlStore) -> None:
    app, first = await store.create_version(make_app(), make_version(make_app()))
    twin = make_version(app, "d2", short_id=first.short_id)
    _, second = await store.create_version(app, twin)
    assert second.short_id == twin.id[-10:]
    assert await store.get_version(app_id=app.id, name=second.short_id) == second


async def test_a_short_id_comes_before_a_label(store: SqlStore) -> None:
    app, first = await store.create_version(make_app(), make_version(make_app()))
    await store.create_version(app, make_version(app, "d2", label=first.short_id))
    assert (await store.get_version(app_id=app.id, name=first.short_id)).id == first.id


async def test_racing_deploys_make_one_app(store: SqlStore) -> None:
    deploys = [store.create_version(make_app(), make_version(make_app(), f"d{i % 2}")) for i in range(8)]
    made: list[tuple[object, Version]] = await asyncio.gather(*deploys)
    assert len({version.app_id for _, version in made}) == 1
    assert len({version.id for _, version in made}) == 2


async def test_a_deleted_app_frees_its_name(store: SqlStore) -> None:
    app, _ = await store.create_version(make_app(), make_version(make_app()))
    with pytest.raises(NotFound):
        await store.delete_app(app.id, "owner_b", NOW)
    await store.delete_app(app.id, "owner_a", NOW)
    for names in ({"id": app.id}, {"namespace": "local", "name": "echo"}):
        with pytest.raises(NotFound):
            await store.get_app(**names)
    assert (await store.list_apps("owner_a", ListQuery())).items == []
    again, _ = await store.create_version(make_app(), make_version(make_app()))
    assert again.id != app.id


async def test_public_apps_are_listed_for_all(store: SqlStore) -> None:
    app, _ = await store.create_version(make_app(), make_version(make_app()))
    assert (await store.list_apps("owner_b", ListQuery())).items == []
    public = dataclasses.replace(app, visibility="public", title="Echo", updated_at=NOW + 1)
    await store.update_app(public)
    assert (await store.list_apps("owner_b", ListQuery())).items == [public]
    with pytest.raises(NotFound):
        await store.update_app(dataclasses.replace(app, id="app_none"))


async def test_somebody_elses_app_is_not_overwritten(store: SqlStore) -> None:
    await store.create_version(make_app(), make_version(make_app()))
    with pytest.raises(Conflict):
        await store.create_version(make_app("owner_b"), make_version(make_app("owner_b")))


# ---- files ----------------------------------------------------------------------------------------------------


async def test_a_file_is_found_by_id_and_by_capability(store: SqlStore) -> None:
    file = make_file(upload_expires_at=NOW + 5, path="a/b")
    await store.create_file(file)
    assert await store.get_file(id=file.id) == await store.get_file(capability=file.capability) == file
    await store.file_stored(file.id, "blob", 3, "aa", "image/png")
    stored = dataclasses.replace(file, blob_key="blob", size=3, sha256="aa", content_type="image/png")
    assert await store.get_file(id=file.id) == stored
    with pytest.raises(NotFound) as refusal:
        await store.get_file(capability="guess")
    assert "guess" not in refusal.value.detail
    with pytest.raises(NotFound):
        await store.file_stored("file_none", "blob", 3, "aa", "image/png")


async def test_a_deleted_file_leaves_no_link(store: SqlStore) -> None:
    file, task = make_file(), await queued(store)
    await store.create_file(file)
    link = TaskFile(task.id, file.id, "output", NOW)
    await store.link_task_files([link, link])
    await store.link_task_files([link])
    assert await store.task_files(task.id) == [(link, file)]
    with pytest.raises(NotFound):
        await store.delete_file(file.id, "owner_b")
    assert await store.delete_file(file.id, "owner_a") == file
    assert await store.task_files(task.id) == []
    with pytest.raises(NotFound):
        await store.get_file(id=file.id)


async def test_uploads_that_never_came(store: SqlStore) -> None:
    stale, fresh, done = (make_file(upload_expires_at=NOW + at) for at in (1, 9, 1))
    for file in (stale, fresh, done):
        await store.create_file(file)
    await store.file_stored(done.id, "blob", 3, "aa", "text/plain")
    assert await store.stale_uploads(NOW + 5, 10) == [stale]


# ---- sessions -------------------------------------------------------------------------------------------------


async def test_a_session_lives_while_it_is_called(store: SqlStore) -> None:
    session = make_session()
    await store.create_session(session)
    assert await store.get_session(session.id, "owner_a") == session
    with pytest.raises(NotFound):
        await store.get_session(session.id, "owner_b")
    called = await store.touch_session(session.id, NOW + 7, called=True)
    assert (called.expires_at, called.call_count, called.last_call_at) == (NOW + 7 + 10_000_000, 1, NOW + 7)
    kept = await store.touch_session(session.id, NOW + 8, called=False)
    assert (kept.expires_at, kept.call_count) == (NOW + 8 + 10_000_000, 1)
    assert await store.list_sessions("owner_a") == [kept]


async def test_an_ended_session_is_gone(store: SqlStore) -> None:
    session = make_session()
    await store.create_session(session)
    await store.end_session(session.id, NOW + 1, "ended", "asked")
    await store.end_session(session.id, NOW + 2, "expired", "idle")
    over = await store.get_session(session.id, None)
    assert (over.status, over.ended_at, over.ended_reason) == ("ended", NOW + 1, "asked")
    with pytest.raises(Gone):
        await store.touch_session(session.id, NOW, called=True)
    with pytest.raises(NotFound):
        await store.touch_session("sess_none", NOW, called=True)


async def test_a_session_does_not_expire_under_its_task(store: SqlStore) -> None:
    idle, busy, young = make_session(), make_session(), make_session(expires_at=NOW + 2**40)
    for session in (idle, busy, young):
        await store.create_session(session)
    await claimed(store, session_id=busy.id)
    assert await store.expired_sessions(NOW + 10_000_000) == [idle]
