"""API keys: made once, hashed, remembered for two seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from bakehouse.core.errors import Forbidden, Invalid, NotFound, Unauthorized
from bakehouse.service.keys import Keys
from tests.support.platform import Platform


async def test_the_first_key_is_admin_of_local(here: Platform) -> None:
    first = await here.keys.first_key()
    assert first is not None
    assert await here.keys.first_key() is None
    caller = await here.keys.authenticate(first.text)
    assert caller.owner_name == "local"
    caller.need("admin")
    assert len(first.text) == len("inf_") + 43


async def test_texts_are_never_kept(here: Platform, tmp_path: Path) -> None:
    made = await here.key()
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("bakehouse.db*"))
    assert made.key.hash.encode() in stored
    assert made.text.encode() not in stored


@pytest.mark.parametrize("change", [lambda text: text[:-1] + "!", lambda text: "", lambda text: text + "x",
                                    lambda text: "inf_" + "A" * 43])  # fmt: skip
async def test_wrong_keys(here: Platform, change: object) -> None:
    made = await here.key()
    assert callable(change)
    with pytest.raises(Unauthorized):
        await here.keys.authenticate(change(made.text))


async def test_scopes_and_expiry(here: Platform) -> None:
    admin = await here.caller()
    made = await here.keys.create(admin, "short", ["run"], here.clock.now() + 10_000_000)
    runner = await here.keys.authenticate(made.text)
    with pytest.raises(Forbidden):
        runner.need("deploy")
    for forbidden in (here.keys.create(runner, "x"), here.keys.list_keys(runner), here.keys.revoke(runner, "x")):
        with pytest.raises(Forbidden):
            await forbidden
    here.clock.moved = 13
    with pytest.raises(Unauthorized):
        await here.keys.authenticate(made.text)


@pytest.mark.parametrize(("scopes", "past", "path"), [(["all"], False, "/scopes"), ([], False, "/scopes"),
                                                      (["run"], True, "/expires_at")])  # fmt: skip
async def test_keys_that_make_no_sense(here: Platform, scopes: list[str], past: bool, path: str) -> None:
    with pytest.raises(Invalid) as caught:
        await here.keys.create(await here.caller(), "x", scopes, 1 if past else None)
    assert caught.value.fields[0]["path"] == path


@pytest.mark.parametrize("database", ["sqlite", "postgres"], indirect=True)
async def test_revoked_here_at_once_and_elsewhere_soon(here: Platform) -> None:
    admin, made = await here.caller(), await here.key()
    elsewhere = Keys(here.store, here.clock)
    await elsewhere.authenticate(made.text)
    await here.keys.authenticate(made.text)
    await here.keys.revoke(admin, made.key.id)
    with pytest.raises(Unauthorized):
        await here.keys.authenticate(made.text)
    await elsewhere.authenticate(made.text)
    here.clock.moved = 2.1
    with pytest.raises(Unauthorized):
        await elsewhere.authenticate(made.text)
    assert made.key.id not in [key.id for key in await here.keys.list_keys(admin)]


async def test_keys_of_others_are_not_there(here: Platform) -> None:
    made = await here.key("other")
    with pytest.raises(NotFound):
        await here.keys.revoke(await here.caller(), made.key.id)
    await here.keys.authenticate(made.text)


@pytest.mark.parametrize("owner", ["models", "examples", "system", "Upper", "", "a/b"])
async def test_names_that_no_owner_can_have(here: Platform, owner: str) -> None:
    with pytest.raises(Invalid):
        await here.keys.create_for(owner, "x", ["run"])
