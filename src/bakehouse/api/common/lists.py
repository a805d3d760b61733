"""Cursor lists: ``POST <resource>/list`` with an optional body, answered with one page."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt
from starlette.requests import Request

from bakehouse.api.common.body import MAX_INTEGER, Body, Part, Text, read_body, refuse
from bakehouse.api.common.envelope import Message
from bakehouse.service.lists import Filter, ListQuery, Page

MAX_LIMIT = 1000
_OFFERED = frozenset(
    {"eq", "neq", "in", "not_in", "gt", "gte", "lt", "lte", "like", "ilike", "contains", "is_null", "is_not_null"}
)
_Scalar = Text | StrictBool | StrictInt | StrictFloat | None


class SearchPart(Part):
    """What to look for, in any letter case."""

    term: Text = ""
    exact: bool | None = None


class FilterPart(Part):
    """One condition; all of them must hold."""

    field: Text
    operator: Literal[
        "eq", "neq", "in", "not_in", "gt", "gte", "lt", "lte", "like", "ilike",
        "contains", "not_contains", "is_null", "is_not_null", "is_empty", "is_not_empty",
    ]  # fmt: skip
    value: _Scalar | list[_Scalar] = None


class SortPart(Part):
    """One order; the first one counts most."""

    field: Text
    dir: Literal["asc", "desc", "ASC", "DESC"] = "asc"


class ListBody(Body):
    """What a list asks for; everything is optional."""

    cursor: Text | None = None
    limit: int | None = Field(None, ge=0, le=MAX_LIMIT, description="Items per page; 0 and none mean 50.")
    direction: Literal["next", "prev", "forward", "backward", ""] | None = None
    search: SearchPart | Text | None = None
    filters: list[FilterPart] | None = Field(None, max_length=50)
    sort: list[SortPart] | None = Field(None, max_length=10)
    page: int | None = Field(None, description="Only 1: go on with the cursor.")
    preloads: list[Text] | None = Field(None, description="Accepted when empty; answers are complete already.")
    fields: list[Text] | None = Field(None, description="Accepted when empty.")
    permissions: list[Text] | None = Field(None, description="Accepted when empty.")
    include_others: bool | None = Field(None, description="Accepted when false.")
    include_private: bool | None = Field(None, description="Your own private items are always listed.")

    def query(self) -> ListQuery:
        """As the services understand it. Raises Invalid for what is not offered, with its path."""
        self._check_offered()
        search = self.search.term if isinstance(self.search, SearchPart) else self.search
        return ListQuery(
            limit=self.limit or 50,
            cursor=self.cursor or None,
            direction="prev" if self.direction in ("prev", "backward") else "next",
            search=search or None,
            filters=tuple(Filter(f.field, f.operator, _value(f, i)) for i, f in enumerate(self.filters or ())),
            sort=tuple((s.field, s.dir.lower()) for s in self.sort or ()),
        )

    def _check_offered(self) -> None:
        for name in ("preloads", "fields", "permissions", "include_others"):
            if getattr(self, name):
                raise refuse(f"/{name}", f"the list option {name!r}")
        if self.page not in (None, 0, 1):
            raise refuse("/page", "a page by number (use cursor)")
        if isinstance(self.search, SearchPart) and self.search.exact:
            raise refuse("/search/exact", "exact search (use a filter with eq)")


def _value(part: FilterPart, index: int) -> Any:
    if part.operator not in _OFFERED:
        raise refuse(f"/filters/{index}/operator", f"the operator {part.operator!r}")
    many = part.operator in ("in", "not_in")
    if many != isinstance(part.value, list):
        raise refuse(f"/filters/{index}/value", f"a value that is {'not ' if many else ''}a list, with this operator,")
    for item in part.value if isinstance(part.value, list) else [part.value]:
        if isinstance(item, int) and abs(item) > MAX_INTEGER:
            raise refuse(f"/filters/{index}/value", "a number beyond 64 bits")
    return part.value


async def read_list(request: Request) -> tuple[ListQuery, list[Message]]:
    """The query in the body of *request*, which may be absent."""
    body, messages = await read_body(request, ListBody)
    return body.query(), messages


def page_data(page: Page, shape: Callable[[Any], Any], limit: int) -> dict[str, Any]:
    """*page* as clients read it; *shape* lays out one item."""
    data: dict[str, Any] = {
        "items": [shape(item) for item in page.items],
        "next_cursor": page.next_cursor or "",
        "prev_cursor": page.prev_cursor or "",
        "has_next": page.next_cursor is not None,
        "has_previous": page.prev_cursor is not None,
        "items_per_page": limit,
    }
    if page.total is not None:
        data["total_items"] = page.total
    return data
