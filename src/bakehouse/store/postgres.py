"""PostgreSQL 15 or newer, through psycopg. A batch of hot operations is one pipeline: a few round trips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import errors
from psycopg.types.numeric import Int8Dumper
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Engine,
    Executable,
    Integer,
    SmallInteger,
    Text,
    bindparam,
    create_engine,
    literal_column,
    select,
    union_all,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.sql.selectable import CTE

from bakehouse.core.errors import BakehouseError, Conflict, Invalid, NotConfigured, Unavailable
from bakehouse.core.task import Event
from bakehouse.store import hot
from bakehouse.store.connection import Connection, Dialect, Sql
from bakehouse.store.driver import Driver
from bakehouse.store.tables import events, tasks

MIN_VERSION = 150000
CONNECT_SECONDS = 5
_NOW: ColumnElement[int] = literal_column("CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)")


class PostgresDriver(Driver):
    """The database behind a libpq URL."""

    errors = psycopg.Error
    begin = "BEGIN"
    begin_snapshot = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
    begin_alone = "SELECT pg_advisory_xact_lock(4842100317)"
    versioned = "SELECT 1 WHERE to_regclass('alembic_version') IS NOT NULL"

    def __init__(self, url: str) -> None:
        self._url = url
        dialect: Any = PGDialect_psycopg
        self.dialect = Dialect("postgresql", dialect(paramstyle="numeric_dollar"), postgresql.insert, _NOW)
        self._hot = _Statements(self.dialect)

    def connect(self, *, writer: bool) -> Connection:
        raw = self._raw()
        if raw.info.server_version < MIN_VERSION:
            raw.close()
            raise NotConfigured(f"PostgreSQL 15 or newer is needed, this is {raw.info.server_version // 10000}")
        # One type for all integers: otherwise a statement is prepared again for each mix of their sizes.
        raw.adapters.register_dumper(int, Int8Dumper)
        raw.execute("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED")
        raw.execute("SET synchronous_commit = on")
        return Connection(raw, self.dialect)

    def _raw(self) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(
            self._url,
            autocommit=True,
            cursor_factory=psycopg.RawCursor,  # ours have $1, $2 already: psycopg need not read the text for %s
            connect_timeout=CONNECT_SECONDS,
            application_name="bakehouse",
            keepalives_idle=30,
        )

    def run_hot(self, connection: Connection, ops: Sequence[hot.HotOp]) -> None:
        self._hot.run(connection, ops)

    def lost(self, error: BaseException) -> bool:
        error = _cause(error)
        if not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            return False
        return error.sqlstate is None or error.sqlstate.startswith(("57P", "08"))

    def passing(self, error: BaseException) -> bool:
        return isinstance(_cause(error), errors.DeadlockDetected | errors.SerializationFailure)

    def translate(self, error: BaseException) -> BakehouseError:
        error = _cause(error)
        if isinstance(error, psycopg.IntegrityError):
            return Conflict(f"this exists already: {error}")
        if isinstance(error, psycopg.DataError):
            return Invalid(f"the database cannot hold this value: {error}")
        return Unavailable(f"PostgreSQL: {error}")

    def engine(self) -> Engine:
        return create_engine("postgresql+psycopg://", creator=self._raw_transactional)

    def _raw_transactional(self) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(self._url, connect_timeout=CONNECT_SECONDS)

    def back_up(self, revision: str) -> str | None:
        return None


def _cause(error: BaseException) -> BaseException:
    """What went wrong first: the statements behind it in a pipeline only say that they were not run."""
    while isinstance(error, errors.PipelineAborted) and error.__context__ is not None:
        error = error.__context__
    return error


# ---- hot operations -------------------------------------------------------------------------------------------

_EVENT_TYPES: dict[str, Any] = {
    "seq": BigInteger(), "at": BigInteger(), "kind": Text(), "status": SmallInteger(), "attempt": Integer(),
    "data": Text(),
}  # fmt: skip


def _told(source: CTE, count: int) -> Executable:
    """Insert *count* events of the parameters, if *source* gave the row of their task.

    A row of parameters for each: arrays would be one statement for all counts, but psycopg is slow at writing them.
    """
    rows: list[Any] = [
        select(source.c.id, *(bindparam(f"{name}_{i}", type_=kind) for name, kind in _EVENT_TYPES.items()))
        for i in range(count)
    ]
    chosen: Any = rows[0] if count == 1 else union_all(*rows)
    return postgresql.insert(events).from_select(["task_id", *_EVENT_TYPES], chosen)


def _event_values(found: Sequence[Event]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for i, e in enumerate(found):
        values[f"seq_{i}"], values[f"at_{i}"], values[f"kind_{i}"] = e.seq, e.at, e.kind
        values[f"status_{i}"], values[f"attempt_{i}"], values[f"data_{i}"] = int(e.status), e.attempt, e.data
    return values


def _claim() -> Any:
    claimed = hot.CLAIM.cte("claimed")
    c = claimed.c
    event = postgresql.insert(events).from_select(
        ["task_id", "seq", "at", "kind", "status", "attempt"],
        select(c.id, c.last_seq, c.updated_at, literal_column("'status'"), c.status, c.attempt),
    )
    return select(claimed).add_cte(event.cte("told"))


class _Statements:
    """The hot operations. Each touches one task and is one statement, because its events depend on its update."""

    def __init__(self, dialect: Dialect) -> None:
        t = tasks.c
        accept = postgresql.insert(tasks).values({name: bindparam(f"t_{name}") for name in hot.TASK_COLUMNS})
        accept = accept.on_conflict_do_nothing(
            index_elements=[t.owner_id, t.idempotency_key], index_where=t.idempotency_key.is_not(None)
        )
        self._sources = {name: update.returning(t.id).cte("changed") for name, update in hot.UPDATES.items()}
        self._sources["accept"] = accept.returning(t.id).cte("accepted")
        self._telling: dict[tuple[str, int], Sql] = {}
        self._dialect = dialect
        self._claim = dialect.compile(_claim())
        self._snapshot = dialect.compile(hot.SNAPSHOT)

    def run(self, connection: Connection, ops: Sequence[hot.HotOp]) -> None:
        steps = [step for op in ops for step in self._steps(op)]
        # All servers lock rows in the order of ids, so that they cannot wait for each other in a circle.
        # The sort is stable: what concerns one task keeps its order.
        steps.sort(key=lambda step: step[0])
        with connection.raw.pipeline():
            answers = [(op, connection.raw.execute(sql.text, sql.values(params))) for _, op, sql, params in steps]
        for op, cursor in answers:
            if type(op) is hot.Write:
                op.result = cursor.rowcount > 0
            elif type(op) is hot.Claim:
                op.result.extend(hot.task_of(row) for row in cursor.fetchall())
            elif type(op) is hot.Accept and cursor.rowcount == 0:
                op.result = _earlier(connection, op)
        _follow_up(connection, ops)

    def _tell(self, source: str, count: int) -> Sql:
        """The statement of *source* (a shape of write, or accept) that tells *count* events."""
        found = self._telling.get((source, count))
        if found is None:
            found = self._telling[source, count] = self._dialect.compile(_told(self._sources[source], count))
        return found

    def _steps(self, op: hot.HotOp) -> list[tuple[str, hot.HotOp, Sql, dict[str, Any]]]:
        """``(task id, operation, statement, parameters)`` of *op*, its result set back: this may be a second run."""
        if isinstance(op, hot.Write):
            told = op.write.events
            return [(op.write.task_id, op, self._tell(op.shape, len(told)), {**op.changes, **_event_values(told)})]
        if isinstance(op, hot.Accept):
            op.result = None
            row = {f"t_{name}": value for name, value in zip(hot.TASK_COLUMNS, hot.row_of(op.task), strict=True)}
            return [(op.task.id, op, self._tell("accept", len(op.events)), {**row, **_event_values(op.events)})]
        if isinstance(op, hot.Claim):
            op.result = []
            return [(i, op, self._claim, {"p_id": i, "p_now": op.now, "p_holder": op.holder}) for i in op.task_ids]
        return [
            (row[0], op, self._snapshot, dict(zip(("p_id", "p_attempt", "p_json"), row, strict=True)))
            for row in op.rows
        ]


def _earlier(connection: Connection, op: hot.Accept) -> Any:
    row = connection.one(hot.EARLIER, {"p_owner": op.task.owner_id, "p_key": op.task.idempotency_key})
    if row is None:
        # It was deleted between the two statements; the operation is run again by itself.
        raise Conflict("the earlier task of this idempotency key was just deleted; try again")
    return hot.task_of(row)


def _follow_up(connection: Connection, ops: Sequence[hot.HotOp]) -> None:
    """The rare rows: links to input files, webhook deliveries."""
    for op in ops:
        if isinstance(op, hot.Accept) and op.files and op.result is None:
            connection.many(hot.INSERT_FILE, [hot.link_row(link) for link in op.files])
        elif isinstance(op, hot.Write) and op.result and op.write.deliver is not None:
            owner = connection.one(hot.GET_OWNER, {"p_id": op.write.task_id})
            assert owner is not None
            row = hot.delivery(op.write.task_id, owner[0], op.write.deliver, op.write.events[-1].at)
            connection.run(hot.INSERT_DELIVERY, row)
