"""The manners that every dialect shares, over real HTTP messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from bakehouse.api.app import create_app
from bakehouse.api.common.auth import caller
from bakehouse.api.common.body import Body, read_body
from bakehouse.api.common.envelope import reply
from bakehouse.api.common.lists import page_data, read_list
from bakehouse.api.common.services import Services
from bakehouse.core.errors import RequirementsNotMet, TooMany, Unauthorized
from bakehouse.core.identity import Caller
from bakehouse.service.lists import Page

WHO = Caller("own_1", "local", "user_1", "key_1", frozenset({"admin"}))


class Sized(Body):
    size: int | None = None


router = APIRouter()


@router.post("/echo")
async def echo(request: Request) -> Response:
    body, messages = await read_body(request, Sized)
    return reply(request, {"size": body.size, "data": 1}, messages=messages)


@router.post("/things/list")
async def things(request: Request) -> Response:
    query, messages = await read_list(request)
    page = Page([query.limit, query.search, query.direction], next_cursor="n", total=3)
    return reply(request, page_data(page, lambda item: item, query.limit), messages=messages)


@router.get("/who")
@router.get("/who/stream")
async def who(request: Request) -> Response:
    found = await caller(request, query_token=request.url.path.endswith("/stream"))
    return reply(request, found.owner_name)


@router.get("/fail/{kind}")
async def fail(kind: str, number: int = 0) -> Response:
    if kind == "stream":

        async def parts() -> AsyncIterator[bytes]:
            yield b"one"
            raise RuntimeError("secret detail")

        return StreamingResponse(parts())
    if kind == "limit":
        raise TooMany("full", retry_after=7)
    if kind == "setup":
        raise RequirementsNotMet("set the secret", fields=[{"type": "secret", "key": "K", "message": "set the secret"}])
    raise RuntimeError("secret detail")


class OneKey:
    async def authenticate(self, text: str) -> Caller:
        if text != "inf_good":
            raise Unauthorized("this API key is not known")
        return WHO


@pytest.fixture
def seen() -> list[tuple[str, str, int]]:
    return []


@pytest.fixture
def app(seen: list[tuple[str, str, int]]) -> FastAPI:
    services = Services(
        tasks=cast(Any, None),
        streams=cast(Any, None),
        webhook_secret=str,
        apps=cast(Any, None), files=cast(Any, None), sessions=cast(Any, None), secrets=cast(Any, None),
        keys=cast(Any, OneKey()), public_url="http://bake.test", max_body=1000,
        not_ready=lambda: "draining", metrics=lambda: b"bakehouse_up 1\n",
        on_request=lambda route, method, status, seconds: seen.append((route, method, status)),
    )  # fmt: skip
    return create_app(services, [router])


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://bake.test") as client:
        yield client


async def test_envelope_and_bare_answer(client: httpx.AsyncClient) -> None:
    wrapped = await client.post("/echo", json={"size": 3})
    assert wrapped.json() == {"success": True, "status": 200, "data": {"size": 3, "data": 1}, "messages": []}
    assert wrapped.headers["content-type"] == "application/json"
    bare = await client.post("/echo", json={"size": 3}, headers={"X-API-Version": "2"})
    assert bare.json() == {"size": 3, "data": 1}


@pytest.mark.parametrize("body", [b"", b"null", b"{}"])
async def test_an_absent_body_is_an_empty_one(client: httpx.AsyncClient, body: bytes) -> None:
    answer = await client.post("/echo", content=body, headers={"content-type": "application/json"})
    assert answer.json()["data"]["size"] is None


async def test_unknown_keys_are_accepted_with_a_warning(client: httpx.AsyncClient) -> None:
    answer = await client.post("/echo", json={"size": None, "variant": "x"})
    assert answer.status_code == 200
    assert [(m["code"], m["meta"]) for m in answer.json()["messages"]] == [("unknown_field", {"field": "variant"})]


@pytest.mark.parametrize("value", ["3", 1.5, True, [], {}])
async def test_a_bad_value_names_its_path(client: httpx.AsyncClient, value: object) -> None:
    answer = await client.post("/echo", json={"size": value})
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (400, "validation_error")
    assert problem["errors"][0]["path"] == "/size"
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("body", [b"{", b"[1]", b'"text"', b"\xff", b'{"a": NaN}'])
async def test_a_body_that_is_no_json_object(client: httpx.AsyncClient, body: bytes) -> None:
    answer = await client.post("/echo", content=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


async def test_problem_has_every_reader_s_fields(client: httpx.AsyncClient) -> None:
    answer = await client.get("/nowhere")
    problem = answer.json()
    assert problem["type"] == "http://bake.test/errors/not_found"
    assert (problem["status"], problem["title"], problem["success"]) == (404, "Not Found", False)
    assert problem["error"] == {"code": "not_found", "message": problem["detail"]}


async def test_wrong_method_and_wrong_query(client: httpx.AsyncClient) -> None:
    answer = await client.get("/echo")
    assert (answer.status_code, answer.json()["code"], answer.headers["allow"]) == (405, "method_not_allowed", "POST")
    answer = await client.get("/fail/limit?number=x")
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, "/number")


async def test_extra_headers_and_fields_of_errors(client: httpx.AsyncClient) -> None:
    assert (await client.get("/fail/limit")).headers["retry-after"] == "7"
    answer = await client.get("/fail/setup")
    assert (answer.status_code, answer.json()["errors"][0]["message"]) == (412, "set the secret")


async def test_a_fault_shows_an_id_and_nothing_else(client: httpx.AsyncClient, logged: list[Any]) -> None:
    answer = await client.get("/fail/boom")
    assert answer.status_code == 500
    assert "secret detail" not in answer.text
    request_id = answer.headers["x-request-id"]
    assert request_id in answer.json()["detail"]
    (line,) = [line for line in logged if line["action"] == "request_failed"]
    assert (line["request"], str(line["exc_info"])) == (request_id, "secret detail")


async def test_keys_in_header_or_for_streams_in_the_query(client: httpx.AsyncClient) -> None:
    answer = await client.get("/who")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer realm="bakehouse"')
    assert (await client.get("/who", headers={"Authorization": "Bearer inf_bad"})).status_code == 401
    assert (await client.get("/who", headers={"Authorization": "bearer inf_good"})).json()["data"] == "local"
    assert (await client.get("/who?access_token=inf_good")).status_code == 401
    assert (await client.get("/who/stream?access_token=inf_good")).json()["data"] == "local"


async def test_errors_of_streams_span_lines(client: httpx.AsyncClient) -> None:
    answer = await client.get("/who/stream")
    assert answer.status_code == 401
    assert len(answer.text.splitlines()) > 5


async def test_double_slashes_collapse(client: httpx.AsyncClient) -> None:
    answer = await client.get("http://bake.test//who", headers={"Authorization": "Bearer inf_good"})
    assert answer.status_code == 200


async def test_nul_in_path_or_query_is_refused(client: httpx.AsyncClient) -> None:
    assert (await client.get("/who%00")).status_code == 404
    assert (await client.get("/who?x=%00")).status_code == 400


async def test_large_bodies_are_refused(client: httpx.AsyncClient) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b"x" * 100

    announced = await client.post("/echo", content=b"x" * 1001)
    assert (announced.status_code, announced.headers["connection"]) == (413, "close")
    assert (await client.post("/echo", content=parts())).status_code == 413


async def test_cors(client: httpx.AsyncClient) -> None:
    preflight = {"Origin": "http://page.test", "Access-Control-Request-Method": "PUT"}
    answer = await client.options("/files/upload/x", headers=preflight)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == "http://page.test"
    assert "PUT" in answer.headers["access-control-allow-methods"]
    assert "x-inf-target-url" in answer.headers["access-control-allow-headers"]
    failed = await client.get("/who", headers={"Origin": "http://page.test"})
    assert failed.headers["access-control-allow-origin"] == "http://page.test"
    assert "access-control-allow-origin" not in (await client.get("/who")).headers


async def test_lists(client: httpx.AsyncClient) -> None:
    answer = await client.post("/things/list", json={"limit": 5, "search": {"term": "cat"}, "direction": "prev"})
    data = answer.json()["data"]
    assert data["items"] == [5, "cat", "prev"]
    assert (data["next_cursor"], data["has_next"], data["has_previous"]) == ("n", True, False)
    assert (data["items_per_page"], data["total_items"]) == (5, 3)
    assert (await client.post("/things/list")).json()["data"]["items_per_page"] == 50


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"limit": -1}, "/limit"),
        ({"preloads": ["app"]}, "/preloads"),
        ({"page": 2}, "/page"),
        ({"search": {"term": "x", "exact": True}}, "/search/exact"),
        ({"filters": [{"field": "a", "operator": "is_empty"}]}, "/filters/0/operator"),
        ({"filters": [{"field": "a", "operator": "in", "value": 1}]}, "/filters/0/value"),
        ({"filters": [{"field": "a", "operator": "eq", "value": 2**63}]}, "/filters/0/value"),
        ({"sort": [{"field": "a\x00"}]}, "/sort/0/field"),
    ],
)
async def test_list_options_that_are_not_offered(client: httpx.AsyncClient, body: dict[str, Any], path: str) -> None:
    answer = await client.post("/things/list", json=body)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["path"] == path


async def test_what_operators_ask(client: httpx.AsyncClient, seen: list[tuple[str, str, int]]) -> None:
    assert (await client.get("/health")).json() == {"status": "ok"}
    answer = await client.get("/ready")
    assert (answer.status_code, answer.json()["detail"]) == (503, "draining")
    assert (await client.get("/metrics")).text == "bakehouse_up 1\n"
    await client.get("/fail/limit")
    await client.get("/nowhere")
    assert seen == [
        ("/health", "GET", 200), ("/ready", "GET", 503), ("/metrics", "GET", 200),
        ("/fail/{kind}", "GET", 429), ("unmatched", "GET", 404),
    ]  # fmt: skip


async def test_the_direct_way_is_like_any_route(client: httpx.AsyncClient, seen: list[tuple[str, str, int]]) -> None:
    answer = await client.post("/apps/run", json={"app": 3}, headers={"Authorization": "Bearer inf_good"})
    assert (answer.status_code, answer.json()["errors"][0]["path"]) == (400, "/app")
    assert answer.headers["x-request-id"]
    assert (await client.post("/apps/run", content=b"{")).status_code == 401
    assert (await client.post("/apps/run", content=b" " * 2000)).status_code == 413
    broken = await client.post(
        "http://bake.test//apps/run", json={"app": "x"}, headers={"Authorization": "Bearer inf_good"}
    )
    assert (broken.status_code, broken.json()["code"]) == (500, "internal_error")
    posts = [("/apps/run", "POST", status) for status in (400, 401)]
    refused_unread, failed = ("unmatched", "POST", 413), ("/apps/run", "POST", 500)
    assert seen == [*posts, refused_unread, failed]


async def test_parts_that_are_missing_say_so_after_the_key(client: httpx.AsyncClient) -> None:
    assert (await client.post("/agents/run")).status_code == 401
    answer = await client.post("/agents/run", headers={"Authorization": "Bearer inf_good"}, json={})
    assert (answer.status_code, answer.json()["code"]) == (501, "not_configured")
    # A published client reads errors below this path only as plain JSON.
    assert answer.headers["content-type"] == "application/json"
    assert (await client.get("/flows", headers={"Authorization": "Bearer inf_good"})).status_code == 501


async def test_a_stream_that_breaks_is_cut_off(app: FastAPI, seen: list[tuple[str, str, int]]) -> None:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "GET", "path": "/fail/stream", "raw_path": b"/fail/stream", "query_string": b"",
        "headers": [], "http_version": "1.1", "scheme": "http", "root_path": "", "asgi": {"spec_version": "2.4"},
    }  # fmt: skip
    await app(scope, receive, cast(Any, send))
    assert [message.get("body") for message in sent] == [None, b"one"]
    assert sent[-1]["more_body"] is True
    assert seen[-1] == ("/fail/{kind}", "GET", 599)


async def test_openapi_describes_itself(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    assert document["security"] == [{"key": []}]
    assert "Problem" in document["components"]["schemas"]
    assert document["paths"]["/health"]["get"]["security"] == []
