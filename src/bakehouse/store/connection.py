"""Statements of SQLAlchemy Core, compiled once, run through a plain driver cursor.

The engine of SQLAlchemy costs more per statement than SQLite needs to run one. Here a statement becomes a string and
a tuple of parameter names; running it is one driver call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Executable
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.sql.elements import ClauseElement, ColumnElement


class Sql:
    """A compiled statement: its text, and the names of its parameters in the order of their places."""

    __slots__ = ("_fixed", "names", "text")

    def __init__(self, text: str, names: Sequence[str], fixed: Mapping[str, Any]) -> None:
        self.text, self.names, self._fixed = text, tuple(names), fixed

    def values(self, params: Mapping[str, Any]) -> tuple[Any, ...]:
        """*params* by place; what the statement itself fixed is filled in."""
        fixed = self._fixed
        return tuple([params[name] if name in params else fixed[name] for name in self.names])


class Dialect:
    """What differs between the databases, as far as statements go.

    ``insert`` is the dialect's insert with ``on_conflict_*``; ``now`` is the database's own clock in microseconds.
    """

    def __init__(
        self, name: str, sqlalchemy: DefaultDialect, insert: Callable[..., Any], now: ColumnElement[int]
    ) -> None:
        self.name, self.insert, self.now = name, insert, now
        self._sqlalchemy = sqlalchemy
        self._compiled: dict[int, tuple[Executable, Sql]] = {}

    def compile(self, statement: Executable) -> Sql:
        """Compile *statement*, lists of ``IN`` spelled out."""
        assert isinstance(statement, ClauseElement)
        compiled: Any = statement.compile(dialect=self._sqlalchemy, compile_kwargs={"render_postcompile": True})
        return Sql(compiled.string, compiled.positiontup or (), compiled.params)

    def compiled(self, statement: Executable) -> Sql:
        """Compile a statement that lives as long as the program, once."""
        found = self._compiled.get(id(statement))
        if found is None:
            # The statement is kept beside its text, so that its id is never taken by another.
            found = self._compiled[id(statement)] = (statement, self.compile(statement))
        return found[1]


class Connection:
    """One driver connection. Not for several threads at once.

    A statement passed with *params* must be a constant of a module, compiled once; one without is compiled each time.
    """

    def __init__(self, raw: Any, dialect: Dialect) -> None:
        self.raw, self.dialect = raw, dialect

    def _execute(self, statement: Executable, params: Mapping[str, Any] | None) -> Any:
        sql = self.dialect.compile(statement) if params is None else self.dialect.compiled(statement)
        return self.raw.execute(sql.text, sql.values(params or {}))

    def all(self, statement: Executable, params: Mapping[str, Any] | None = None) -> list[tuple[Any, ...]]:
        """Every row."""
        rows: list[tuple[Any, ...]] = self._execute(statement, params).fetchall()
        return rows

    def one(self, statement: Executable, params: Mapping[str, Any] | None = None) -> tuple[Any, ...] | None:
        """The first row, or None."""
        row: tuple[Any, ...] | None = self._execute(statement, params).fetchone()
        return row

    def run(self, statement: Executable, params: Mapping[str, Any] | None = None) -> int:
        """Change something; how many rows."""
        count: int = self._execute(statement, params).rowcount
        return count

    def many(self, statement: Executable, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run a constant statement once per row."""
        if rows:
            sql = self.dialect.compiled(statement)
            self.raw.cursor().executemany(sql.text, [sql.values(row) for row in rows])

    def plain(self, text: str) -> Any:
        """Run a statement without parameters, such as BEGIN."""
        return self.raw.execute(text)
