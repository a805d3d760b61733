"""Cursor lists: pages, order, filters, search; and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from bakehouse.core.errors import Invalid
from bakehouse.store.base import Filter, ListQuery
from bakehouse.store.sql import SqlStore
from tests.store.samples import NOW, S, claimed, ended, make_app, make_file, make_version, queued


async def ids(store: SqlStore, *filters: Filter, **query: Any) -> list[str]:
    page = await store.list_tasks("owner_a", ListQuery(filters=filters, **query))
    return [task.id for task in page.items]


async def test_pages_go_forward_and_back(store: SqlStore) -> None:
    newest = [(await queued(store)).id for _ in range(7)]
    newest.sort(reverse=True)
    await queued(store, "owner_b")
    first = await store.list_tasks("owner_a", ListQuery(limit=3))
    assert [task.id for task in first.items] == newest[:3]
    assert (first.prev_cursor, first.total) == (None, 7)
    second = await store.list_tasks("owner_a", ListQuery(limit=3, cursor=first.next_cursor))
    assert [task.id for task in second.items] == newest[3:6]
    third = await store.list_tasks("owner_a", ListQuery(limit=3, cursor=second.next_cursor))
    assert [task.id for task in third.items] == newest[6:]
    assert third.next_cursor is None
    back = await store.list_tasks("owner_a", ListQuery(limit=3, cursor=second.prev_cursor, direction="prev"))
    assert [task.id for task in back.items] == newest[:3]
    assert back.prev_cursor is None
    assert back.next_cursor == newest[2]


@pytest.mark.parametrize("direction", ["asc", "desc"])
async def test_pages_in_another_order_lose_nothing(store: SqlStore, direction: str) -> None:
    for i in range(9):
        await queued(store, created_at=NOW + i % 3, session_id=[None, "s1", "s2"][i % 3])
    for field in ("created_at", "session_id", "status"):
        seen: list[str] = []
        cursor: str | None = None
        while True:
            query = ListQuery(limit=2, cursor=cursor, sort=((field, direction),))
            page = await store.list_tasks("owner_a", query)
            seen += [task.id for task in page.items]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert len(seen) == len(set(seen)) == 9
        assert seen == await ids(store, limit=50, sort=((field, direction),))


async def test_sorted_by_a_field(store: SqlStore) -> None:
    made = [await queued(store, created_at=NOW + at) for at in (5, 1, 3)]
    assert await ids(store, sort=(("created_at", "asc"),)) == [made[1].id, made[2].id, made[0].id]


async def test_filters(store: SqlStore) -> None:
    a = await queued(store, app_ref="local/Echo@1", created_at=NOW)
    b = await claimed(store, app_ref="local/other_%@2", created_at=NOW + 1_000_000)
    c = await ended(store, created_at=NOW + 2_000_000)
    cases: list[tuple[Filter, set[str]]] = [
        (Filter("status", "eq", "queued"), {a.id}),
        (Filter("status", "eq", 3), {b.id}),
        (Filter("status", "in", [2, "completed"]), {a.id, c.id}),
        (Filter("status", "not_in", ["queued"]), {b.id, c.id}),
        (Filter("app_ref", "neq", "local/Echo@1"), {b.id, c.id}),
        (Filter("app_ref", "in", ["local/Echo@1", None]), {a.id, c.id}),
        (Filter("app_ref", "not_in", ["local/Echo@1", None]), {b.id}),
        (Filter("app_ref", "not_in", ["local/Echo@1"]), {b.id, c.id}),
        (Filter("app_ref", "in", []), set()),
        (Filter("app_ref", "not_in", []), {a.id, b.id, c.id}),
        (Filter("app_ref", "is_null"), {c.id}),
        (Filter("app_ref", "eq", None), {c.id}),
        (Filter("app_ref", "is_not_null"), {a.id, b.id}),
        (Filter("app_ref", "like", "local/e%"), set()),
        (Filter("app_ref", "like", "local/E%"), {a.id}),
        (Filter("app_ref", "ilike", "LOCAL/e%"), {a.id}),
        (Filter("app_ref", "contains", "_%"), {b.id}),
        (Filter("app_ref", "contains", "echo"), set()),
        (Filter("created_at", "gt", NOW), {b.id, c.id}),
        (Filter("created_at", "lte", "2023-11-14T22:13:20Z"), {a.id}),
        (Filter("created_at", "gte", "2023-11-14T22:13:21+00:00"), {b.id, c.id}),
        (Filter("created_at", "lt", NOW + 1), {a.id}),
        (Filter("attempt", "lt", 2**62), {a.id, b.id, c.id}),
        (Filter("status", "in", [2**40, 2]), {a.id}),
    ]
    for item, expected in cases:
        assert set(await ids(store, item)) == expected, item
    assert await ids(store, Filter("status", "eq", "queued"), Filter("created_at", "gt", NOW)) == []


async def test_search_ignores_case_and_takes_wildcards_as_text(store: SqlStore) -> None:
    task = await queued(store, app_ref="local/Echo_x")
    await queued(store, app_ref="local/other")
    assert await ids(store, search="ECHO_") == [task.id]
    assert await ids(store, search="%") == []
    assert await ids(store, search=task.id) == [task.id]


@pytest.mark.parametrize(
    ("query", "path"),
    [
        (ListQuery(filters=(Filter("status", "eq", 1), Filter("input", "eq", "x"))), "/filters/1/field"),
        (ListQuery(filters=(Filter("status", "wild", 1),)), "/filters/0/operator"),
        (ListQuery(filters=(Filter("status", "eq", "sleepy"),)), "/filters/0/value"),
        (ListQuery(filters=(Filter("status", "in", ["queued", "x"]),)), "/filters/0/value/1"),
        (ListQuery(filters=(Filter("status", "in", 1),)), "/filters/0/value"),
        (ListQuery(filters=(Filter("status", "contains", "x"),)), "/filters/0/value"),
        (ListQuery(filters=(Filter("app_ref", "eq", 1),)), "/filters/0/value"),
        (ListQuery(filters=(Filter("app_ref", "eq", "\0"),)), "/filters/0/value"),
        (ListQuery(filters=(Filter("app_ref", "like", "\0"),)), "/filters/0/value"),
        (ListQuery(filters=(Filter("created_at", "gt", "soon"),)), "/filters/0/value"),
        (ListQuery(filters=(Filter("attempt", "gt", 1.5),)), "/filters/0/value"),
        (ListQuery(filters=(Filter("attempt", "gt", 2**70),)), "/filters/0/value"),
        (ListQuery(search="\0"), "/search"),
        (ListQuery(search="\udc80"), "/search"),
        (ListQuery(cursor="\0"), "/cursor"),
        (ListQuery(sort=(("owner_id", "asc"),)), "/sort/0/field"),
        (ListQuery(cursor="task_none"), "/cursor"),
    ],
)
async def test_what_cannot_be_asked_is_named(store: SqlStore, query: ListQuery, path: str) -> None:
    with pytest.raises(Invalid) as refusal:
        await store.list_tasks("owner_a", query)
    assert refusal.value.fields[0]["path"] == path


async def test_other_lists_know_their_fields(store: SqlStore) -> None:
    file = make_file(public=True)
    await store.create_file(file)
    await store.create_file(make_file())
    listed = await store.list_files("owner_a", ListQuery(filters=(Filter("public", "eq", True),)))
    assert listed.items == [file]
    app, _ = await store.create_version(make_app(), make_version(make_app()))
    assert (await store.list_apps("owner_a", ListQuery(search="ECHO"))).items == [app]
    versions = await store.list_versions(app.id, ListQuery(filters=(Filter("status", "eq", "building"),)))
    assert [version.app_id for version in versions.items] == [app.id]


async def test_a_page_of_a_changing_list(store: SqlStore) -> None:
    first = sorted([(await queued(store)).id for _ in range(4)], reverse=True)
    page = await store.list_tasks("owner_a", ListQuery(limit=2))
    new = (await queued(store)).id
    rest = await store.list_tasks("owner_a", ListQuery(limit=2, cursor=page.next_cursor))
    assert new not in [task.id for task in rest.items]
    assert [task.id for task in rest.items] == first[2:]
    assert rest.items[0].status == S.QUEUED
