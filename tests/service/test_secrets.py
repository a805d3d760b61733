"""Secrets: what is kept, what is shown, what is bound to whom."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import pytest

from bakehouse.core.app import Manifest, Requirement, Version
from bakehouse.core.errors import Conflict, Forbidden, Invalid, NotFound, Unavailable
from bakehouse.service.keyfile import ServerSecret
from bakehouse.service.secrets import Secrets
from tests.support.platform import Platform

VALUE = "correct horse battery staple"


async def test_values_reach_apps_and_nobody_else(here: Platform, tmp_path: Path) -> None:
    who = await here.caller()
    shown = await here.secrets.create(who, "TOKEN", VALUE, "for tests")
    assert (shown.hint, VALUE in repr(shown)) == ("aple", False)
    assert await here.secrets.values(who.owner_id, {"TOKEN", "OTHER"}) == {"TOKEN": VALUE}
    assert await here.secrets.values("own_other", {"TOKEN"}) == {}
    await here.secrets.create(who, "SHORT", "1234")
    assert [(s.key, s.hint) for s in await here.secrets.list_secrets(who)] == [("SHORT", ""), ("TOKEN", "aple")]
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("bakehouse.db*"))
    assert VALUE.encode() not in stored
    assert base64.b64encode(VALUE.encode()) not in stored


async def test_change_and_delete(here: Platform) -> None:
    who = await here.caller()
    await here.secrets.create(who, "TOKEN", VALUE, "old")
    revisions = [await here.secrets.revision(who.owner_id)]
    with pytest.raises(Conflict):
        await here.secrets.create(who, "TOKEN", "again")
    changed = await here.secrets.change(who, "TOKEN", None, "new")
    assert changed.description == "new"
    assert await here.secrets.values(who.owner_id, {"TOKEN"}) == {"TOKEN": VALUE}
    revisions.append(await here.secrets.revision(who.owner_id))
    await here.secrets.change(who, "TOKEN", "other value", None)
    assert await here.secrets.values(who.owner_id, {"TOKEN"}) == {"TOKEN": "other value"}
    await here.secrets.delete(who, "TOKEN")
    revisions.append(await here.secrets.revision(who.owner_id))
    assert revisions == sorted(set(revisions)), "every change makes a new revision, so that instances are not reused"
    for gone in (here.secrets.delete(who, "TOKEN"), here.secrets.change(who, "TOKEN", "x", None)):
        with pytest.raises(NotFound):
            await gone


@pytest.mark.parametrize("key", ["", "1X", "A-B", "A B", "BAKEHOUSE_FD", "bakehouse_x", "Ä", "A" * 129])
async def test_names_are_variables(here: Platform, key: str) -> None:
    with pytest.raises(Invalid) as caught:
        await here.secrets.create(await here.caller(), key, "value")
    assert caught.value.fields[0]["path"] == "/key"


@pytest.mark.parametrize("value", ["", "a\x00b", "x" * 65537])
async def test_values_fit_into_an_environment(here: Platform, value: str) -> None:
    with pytest.raises(Invalid):
        await here.secrets.create(await here.caller(), "TOKEN", value)


async def test_running_is_no_right_to_secrets(here: Platform) -> None:
    runner = await here.caller("local", "run")
    for forbidden in (
        here.secrets.list_secrets(runner),
        here.secrets.create(runner, "A", "b"),
        here.secrets.change(runner, "A", "b", None),
        here.secrets.delete(runner, "A"),
    ):
        with pytest.raises(Forbidden):
            await forbidden


@pytest.mark.parametrize("database", ["sqlite", "postgres"], indirect=True)
async def test_a_row_is_bound_to_owner_and_name(here: Platform) -> None:
    who = await here.caller()
    await here.secrets.create(who, "TOKEN", VALUE)
    ((_, sealed, _, _),) = await here.store.secrets(who.owner_id)
    other = await here.caller("other")
    for owner, key in ((other.owner_id, "TOKEN"), (who.owner_id, "COPY")):
        await here.store.put_secret(owner, key, sealed, "", here.clock.now())
        with pytest.raises(Unavailable):
            await here.secrets.values(owner, {key})


async def test_another_key_file_reads_nothing(here: Platform) -> None:
    who = await here.caller()
    await here.secrets.create(who, "TOKEN", VALUE)
    stranger = Secrets(here.store, here.clock, ServerSecret(b"x" * 32))
    with pytest.raises(Unavailable, match="key file"):
        await stranger.values(who.owner_id, {"TOKEN"})


async def test_missing_secrets_say_the_way_out(here: Platform) -> None:
    who = await here.caller()
    wanted = Manifest("echo", secrets=(Requirement("TOKEN", "of the service"), Requirement("EXTRA", optional=True)))
    version = Version("ver_1", "app_1", who.owner_id, "1", "d", "ready", 0, "file_1", wanted)
    (field,) = await here.secrets.missing(who.owner_id, version)
    assert (field["type"], field["key"], field["action"]["type"]) == ("secret", "TOKEN", "add_secret")
    assert "bakehouse secrets set TOKEN" in field["message"]
    await here.secrets.create(who, "TOKEN", VALUE)
    assert await here.secrets.missing(who.owner_id, version) == []
    assert await here.secrets.missing(who.owner_id, replace(version, manifest=Manifest("echo"))) == []
