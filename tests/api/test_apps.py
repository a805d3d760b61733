"""Apps, sessions, keys and secrets over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.support.platform import Platform, package


@pytest.fixture
async def client(here: Platform) -> AsyncIterator[httpx.AsyncClient]:
    async with here.client((await here.key()).text) as client:
        yield client


async def data(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


async def deploy(
    client: httpx.AsyncClient, here: Platform, manifest: str = "name: echo", **body: Any
) -> httpx.Response:
    uri = await here.upload(await here.caller(), package(manifest), filename="app.zip")
    version = {"package_uri": uri, **body.pop("version", {})}
    return await client.post("/apps", json={"version": version, **body})


async def ready(client: httpx.AsyncClient, here: Platform, manifest: str = "name: echo") -> dict[str, Any]:
    app = await data(await deploy(client, here, manifest))
    await here.built(await here.apps.version(app["version"]["id"]))
    return dict(await data(await client.get(f"/apps/{app['id']}")))


class TestApps:
    async def test_deploy_and_look_up(self, client: httpx.AsyncClient, here: Platform) -> None:
        answer = await deploy(client, here, "name: echo\nsecrets: [{key: TOKEN}]", namespace="local", name="echo")
        app = await data(answer)
        assert (app["ref"], app["version"]["status"], app["version_id"]) == ("local/echo", "building", None)
        assert app["build_task_id"] == here.builds[0].id
        assert answer.json()["messages"] == []
        assert (await client.get(f"/apps/{app['id']}")).json()["data"]["version_id"] is None
        await here.built(await here.apps.version(app["version"]["id"]))
        by_id = await data(await client.get(f"/apps/{app['id']}"))
        assert by_id == await data(await client.get("/apps/local/echo"))
        assert by_id["version"]["functions"][0]["name"] == "run"
        assert by_id["version"]["required_secrets"][0]["key"] == "TOKEN"
        versions = f"/apps/{app['id']}/versions"
        (version,) = (await data(await client.post(f"{versions}/list")))["items"]
        assert version == by_id["version"]
        for name in (version["id"], version["short_id"]):
            assert await data(await client.get(f"{versions}/{name}")) == version
        assert [item["id"] for item in (await data(await client.post("/apps/list")))["items"]] == [app["id"]]

    async def test_what_the_package_says_is_not_asked_twice(self, client: httpx.AsyncClient, here: Platform) -> None:
        answer = await deploy(
            client, here, "name: echo\nnonsense: 1", name="other", tags=["x"], version={"kernel": "python-3.9"}
        )
        told = {(message["code"], (message.get("meta") or {}).get("field")) for message in answer.json()["messages"]}
        assert told == {("ignored_field", "tags"), ("ignored_field", "version.kernel"), ("manifest", None)}
        assert (await data(answer))["name"] == "echo"

    @pytest.mark.parametrize(
        ("body", "status", "path"),
        [
            ({}, 400, "/version"), ({"version": {}}, 400, "/version/package_uri"),
            ({"version": {"package_uri": "http://x.test/a"}}, 400, "/version/package_uri"),
            ({"version": {"package_uri": "x"}, "name": 3}, 400, "/name"),
        ],
    )  # fmt: skip
    async def test_bad_deploys(
        self, client: httpx.AsyncClient, here: Platform, body: dict[str, Any], status: int, path: str
    ) -> None:
        answer = await client.post("/apps", json=body)
        assert (answer.status_code, answer.json()["errors"][0]["path"]) == (status, path)

    async def test_a_package_that_is_none(self, client: httpx.AsyncClient, here: Platform) -> None:
        uri = await here.upload(await here.caller(), b"not an archive")
        answer = await client.post("/apps", json={"version": {"package_uri": uri}})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_package")

    async def test_change_publish_delete(self, client: httpx.AsyncClient, here: Platform) -> None:
        app = await ready(client, here)
        path = f"/apps/{app['id']}"
        changed = await data(await client.post(path, json={"title": "Echo", "description": None}))
        assert (changed["title"], changed["description"]) == ("Echo", "")
        assert (await data(await client.post(f"{path}/visibility", json={"visibility": "public"})))[
            "visibility"
        ] == "public"
        refused = await client.post(f"{path}/visibility", json={"visibility": "team"})
        assert (refused.status_code, refused.json()["errors"][0]["path"]) == (400, "/visibility")
        async with here.client((await here.key("other")).text) as other:
            assert (await other.get("/apps/local/echo")).status_code == 200
            assert (await other.delete(path)).status_code == 404
        current = await data(await client.put(f"{path}/versions/{app['version']['short_id']}/current"))
        assert current["version_id"] == app["version_id"]
        assert (await data(await client.delete(path)))["deleted"] is True
        assert (await client.get(path)).status_code == 404

    @pytest.mark.parametrize(
        "path",
        ["/apps/app_1/duplicate", "/apps/app_1/license", "/tasks/task_1/visibility", "/tasks/featured",
         "/secrets/reveal/TOKEN"],
    )  # fmt: skip
    async def test_actions_that_are_not_here(self, client: httpx.AsyncClient, path: str) -> None:
        for answer in (await client.post(path, json={}), await client.get(path)):
            assert (answer.status_code, answer.json()["code"]) == (501, "not_configured")
            assert path in answer.json()["detail"]

    async def test_scopes(self, client: httpx.AsyncClient, here: Platform) -> None:
        app = await ready(client, here)
        async with here.client((await here.key("local", "run")).text) as runner:
            assert (await runner.get(f"/apps/{app['id']}")).status_code == 200
            for answer in (
                await deploy(runner, here), await runner.delete(f"/apps/{app['id']}"),
                await runner.post(f"/apps/{app['id']}", json={"title": "x"}), await runner.post("/secrets/list"),
                await runner.post("/apikeys/list"),
            ):  # fmt: skip
                assert (answer.status_code, answer.json()["code"]) == (403, "insufficient_scope")


class TestSessions:
    async def test_the_four_of_them(self, client: httpx.AsyncClient, here: Platform) -> None:
        assert await data(await client.get("/sessions")) == []
        await ready(client, here)
        who = await here.caller()
        session_id = await here.sessions.open(who, *await here.apps.resolve(who, ref="echo"), 60)
        session = await data(await client.get(f"/sessions/{session_id}"))
        assert (session["status"], session["idle_timeout"], session["ended_at"]) == ("active", 60, None)
        assert await data(await client.get("/sessions")) == [session]
        here.clock.moved = 30
        kept = await data(await client.post(f"/sessions/{session_id}/keepalive", json={}))
        assert kept["expires_at"] > session["expires_at"]
        assert (await data(await client.delete(f"/sessions/{session_id}")))["status"] == "ended"
        late = await client.post(f"/sessions/{session_id}/keepalive")
        assert (late.status_code, late.json()["code"]) == (410, "SESSION_ENDED")
        missing = await client.get("/sessions/sess_x")
        assert (missing.status_code, missing.json()["code"]) == (404, "SESSION_NOT_FOUND")


class TestAccount:
    async def test_me(self, client: httpx.AsyncClient, here: Platform) -> None:
        me = await data(await client.get("/me"))
        assert (me["team"]["username"], me["key"]["scopes"]) == ("local", ["admin"])
        assert me["webhook_secret"] == f"whsec_{me['team']['id']}"
        async with here.client((await here.key("local", "run")).text) as runner:
            assert (await data(await runner.get("/me")))["webhook_secret"] == ""

    async def test_keys(self, client: httpx.AsyncClient, here: Platform) -> None:
        body = {"name": "ci", "scopes": ["deploy"], "expires_at": "2999-01-01T00:00:00Z"}
        made = await data(await client.post("/apikeys", json=body))
        assert (made["scopes"], made["expires_at"][:10], made["key"][:4]) == (["deploy"], "2999-01-01", "inf_")
        listed = (await data(await client.post("/apikeys/list", json={"search": {"term": "ci"}})))["items"]
        assert listed == [{key: value for key, value in made.items() if key != "key"}]
        async with here.client(made["key"]) as deployer:
            assert (await deployer.get("/me")).status_code == 200
            assert (await client.delete(f"/apikeys/{made['id']}")).status_code == 200
            assert (await deployer.get("/me")).status_code == 401
        assert (await client.delete(f"/apikeys/{made['id']}")).status_code == 404

    @pytest.mark.parametrize(
        ("body", "path"),
        [
            ({}, "/name"), ({"name": ""}, "/name"), ({"name": "x", "scopes": ["all"]}, "/scopes/0"),
            ({"name": "x", "expires_at": "tomorrow"}, "/expires_at"),
            ({"name": "x", "expires_at": "2999-01-01T00:00:00"}, "/expires_at"),
            ({"name": "x", "expires_at": "2001-01-01T00:00:00Z"}, "/expires_at"),
        ],
    )  # fmt: skip
    async def test_bad_keys(self, client: httpx.AsyncClient, body: dict[str, Any], path: str) -> None:
        answer = await client.post("/apikeys", json=body)
        assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, path)

    async def test_secrets(self, client: httpx.AsyncClient) -> None:
        value = "correct horse battery staple"
        made = await client.post("/secrets", json={"key": "TOKEN", "value": value, "description": "d"})
        assert (await data(made))["masked_value"] == "****aple"
        changed = await client.put("/secrets/TOKEN", json={"value": value + "!"})
        assert (await data(changed))["description"] == "d"
        listed = await client.post("/secrets/list")
        assert [item["key"] for item in (await data(listed))["items"]] == ["TOKEN"]
        assert all(value not in answer.text for answer in (made, changed, listed))
        assert (await client.post("/secrets", json={"key": "TOKEN", "value": "x"})).status_code == 409
        assert (await client.delete("/secrets/TOKEN")).status_code == 200
        assert (await client.delete("/secrets/TOKEN")).status_code == 404

    async def test_short_lists_have_pages(self, client: httpx.AsyncClient) -> None:
        for name in "ABCDE":
            await client.post("/secrets", json={"key": name, "value": "x"})

        async def page(**body: Any) -> tuple[list[str], dict[str, Any]]:
            found = await data(await client.post("/secrets/list", json={"limit": 2, **body}))
            return [item["key"] for item in found["items"]], found

        first, found = await page()
        second, found = await page(cursor=found["next_cursor"])
        third, last = await page(cursor=found["next_cursor"])
        assert (first, second, third) == (["A", "B"], ["C", "D"], ["E"])
        assert (last["has_next"], last["total_items"]) == (False, 5)
        assert (await page(cursor=last["prev_cursor"], direction="prev"))[0] == ["C", "D"]
        assert (await client.post("/secrets/list", json={"cursor": "nothing"})).status_code == 400
