"""Cursor lists: filters, search, order and pages, the same for every noun."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Float,
    Integer,
    Select,
    SmallInteger,
    Table,
    and_,
    false,
    func,
    literal,
    or_,
    select,
    true,
)
from sqlalchemy.sql.elements import ColumnElement

from bakehouse.core.errors import Invalid
from bakehouse.core.task import TaskStatus
from bakehouse.store.base import Filter, ListQuery, Page
from bakehouse.store.connection import Connection

COUNT_UP_TO = 10_000
"""A list's total is not counted beyond this: it would cost more than the page."""

Condition = ColumnElement[bool]


@dataclass(frozen=True, slots=True)
class Listing:
    """What may be asked of a table: ``fields`` by name (or alias), and by a term found in one of ``search``."""

    table: Table
    fields: tuple[str, ...]
    search: tuple[str, ...]
    make: Callable[[tuple[Any, ...]], Any]
    aliases: Mapping[str, str] = field(default_factory=dict)

    def column(self, name: str, path: str) -> ColumnElement[Any]:
        """The column behind *name*; Invalid with *path* when there is none."""
        name = self.aliases.get(name, name)
        if name not in self.fields:
            raise Invalid.at(path, f"unknown field {name!r}; known: {', '.join(sorted(self.fields))}")
        return self.table.c[name]


def list_page(connection: Connection, listing: Listing, scope: Condition, query: ListQuery) -> Page:
    """One page of the rows in *scope*, newest first unless *query* sorts otherwise."""
    where = [scope, *(_condition(listing, item, i) for i, item in enumerate(query.filters))]
    if query.search:
        _text(query.search, "/search")
        where.append(or_(*(_has(listing.table.c[name], query.search, fold=True) for name in listing.search)))
    order = _order(listing, query)
    back = query.direction == "prev"
    statement = select(listing.table).where(*where)
    if query.cursor:
        statement = _after(connection, listing, statement, scope, query.cursor, order, back)
    columns = [_directed(column, descending != back) for column, descending in order]
    rows = connection.all(statement.order_by(*columns).limit(query.limit + 1))
    more, rows = len(rows) > query.limit, rows[: query.limit]
    if back:
        rows.reverse()
    newer, older = (more, bool(query.cursor)) if back else (bool(query.cursor), more)
    return Page(
        [listing.make(row) for row in rows],
        next_cursor=rows[-1][0] if rows and older else None,
        prev_cursor=rows[0][0] if rows and newer else None,
        total=_count(connection, listing, where),
    )


def _count(connection: Connection, listing: Listing, where: list[Condition]) -> int | None:
    some = select(listing.table.c.id).where(*where).limit(COUNT_UP_TO + 1).subquery()
    row = connection.one(select(func.count()).select_from(some))
    return row[0] if row and row[0] <= COUNT_UP_TO else None


# ---- order and cursors ----------------------------------------------------------------------------------------

Order = list[tuple[ColumnElement[Any], bool]]


def _order(listing: Listing, query: ListQuery) -> Order:
    """Columns and whether they fall. The id decides between equals; without NULLs, so that a cursor can compare."""
    order: Order = []
    for index, (name, direction) in enumerate(query.sort):
        column = listing.column(name, f"/sort/{index}/field")
        order.append((func.coalesce(column, 0 if _numeric(column) else ""), direction == "desc"))
    return [*order, (listing.table.c.id, order[-1][1] if order else True)]


def _directed(column: ColumnElement[Any], descending: bool) -> ColumnElement[Any]:
    return column.desc() if descending else column.asc()


def _after(
    connection: Connection,
    listing: Listing,
    statement: Select[Any],
    scope: Condition,
    cursor: str,
    order: Order,
    back: bool,
) -> Select[Any]:
    """Only rows behind the one that *cursor* names."""
    _text(cursor, "/cursor")
    row = connection.one(select(*(column for column, _ in order)).where(scope, listing.table.c.id == cursor))
    if row is None:
        raise Invalid.at("/cursor", f"{cursor!r} names no item of this list; start again without it")
    steps = []
    for index, (column, descending) in enumerate(order):
        same = [earlier == row[i] for i, (earlier, _) in enumerate(order[:index])]
        steps.append(and_(*same, column < row[index] if descending != back else column > row[index]))
    return statement.where(or_(*steps))


# ---- filters --------------------------------------------------------------------------------------------------

_COMPARE: dict[str, Callable[[ColumnElement[Any], Any], Condition]] = {
    "eq": lambda column, value: column == value,
    "neq": lambda column, value: or_(column != value, column.is_(None)),
    "gt": lambda column, value: column > value,
    "gte": lambda column, value: column >= value,
    "lt": lambda column, value: column < value,
    "lte": lambda column, value: column <= value,
}
_MATCH: dict[str, Callable[[ColumnElement[Any], str], Condition]] = {
    "like": lambda column, value: column.like(value),
    "ilike": lambda column, value: column.ilike(value),
    "contains": lambda column, value: _has(column, value, fold=False),
}


def _has(column: ColumnElement[Any], term: str, *, fold: bool) -> Condition:
    return column.icontains(term, autoescape=True) if fold else column.contains(term, autoescape=True)


def _numeric(column: ColumnElement[Any]) -> bool:
    return isinstance(column.type, BigInteger | Integer | SmallInteger | Float)


def _condition(listing: Listing, item: Filter, index: int) -> Condition:
    path = f"/filters/{index}"
    column = listing.column(item.field, f"{path}/field")
    if item.operator == "is_null":
        return column.is_(None)
    if item.operator == "is_not_null":
        return column.is_not(None)
    if item.operator in ("in", "not_in"):
        return _member(column, item, path)
    if item.operator in _MATCH:
        if _numeric(column) or not isinstance(item.value, str):
            raise Invalid.at(f"{path}/value", f"{item.operator} compares text with text")
        return _MATCH[item.operator](column, _text(item.value, f"{path}/value"))
    if item.operator not in _COMPARE:
        raise Invalid.at(f"{path}/operator", f"unknown operator {item.operator!r}")
    if item.value is None:
        return {"eq": column.is_(None), "neq": column.is_not(None)}.get(item.operator, false())
    return _COMPARE[item.operator](column, _value(column, item.value, f"{path}/value"))


def _member(column: ColumnElement[Any], item: Filter, path: str) -> Condition:
    if not isinstance(item.value, list | tuple):
        raise Invalid.at(f"{path}/value", f"{item.operator} needs a list")
    values = [_value(column, value, f"{path}/value/{i}") for i, value in enumerate(item.value) if value is not None]
    inside: Condition = column.in_(values) if values else false()
    if len(values) < len(item.value):
        inside = or_(inside, column.is_(None))
    if item.operator == "in":
        return inside
    return or_(~inside, column.is_(None)) if len(values) == len(item.value) else and_(~inside) if values else true()


def _value(column: ColumnElement[Any], value: Any, path: str) -> Any:
    """*value* as the column holds it: states by name, times as RFC 3339, true and false as 1 and 0."""
    name = str(getattr(column, "name", ""))
    if not _numeric(column):
        if not isinstance(value, str):
            raise Invalid.at(path, f"{name} is compared with text")
        return _text(value, path)
    if isinstance(value, int):
        if abs(value) >= 1 << 63:
            raise Invalid.at(path, "a number of at most 64 bits is needed")
        return literal(int(value), BigInteger())  # else PostgreSQL would refuse what does not fit the column
    if isinstance(value, float) and isinstance(column.type, Float):
        return value
    if isinstance(value, str) and name == "status" and value.upper() in TaskStatus.__members__:
        return int(TaskStatus[value.upper()])
    if isinstance(value, str) and name.endswith("_at"):
        return _micros(value, path)
    raise Invalid.at(path, f"{name} is compared with a number")


def _text(value: str, path: str) -> str:
    """*value* if a database's text can hold it."""
    if "\0" in value or not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Invalid.at(path, "not valid Unicode") from None
        if "\0" in value:
            raise Invalid.at(path, "a NUL character is in no text here")
    return value


def _micros(value: str, path: str) -> int:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise Invalid.at(path, f"{value!r} is not an RFC 3339 time") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1_000_000)
