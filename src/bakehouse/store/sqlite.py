"""SQLite: one file, write-ahead log, every commit synced to disk before it is answered."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Engine, create_engine, literal_column
from sqlalchemy.dialects import sqlite

from bakehouse.core.errors import BakehouseError, Conflict, Unavailable
from bakehouse.store import hot
from bakehouse.store.connection import Connection, Dialect, Sql
from bakehouse.store.driver import Driver
from bakehouse.store.tables import tasks

_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA busy_timeout = 10000",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA cache_size = -16000",
    # Like PostgreSQL, so that a filter means the same on both.
    "PRAGMA case_sensitive_like = ON",
)
# Fewer, larger checkpoints: each costs two syncs in the middle of a commit.
_WRITER_PRAGMAS = ("PRAGMA wal_autocheckpoint = 4000", "PRAGMA journal_size_limit = 67108864")
_NOW: ColumnElement[int] = literal_column("CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)")


class SqliteDriver(Driver):
    """The database in one file; its directory must exist."""

    errors = sqlite3.Error
    begin = "BEGIN IMMEDIATE"
    begin_snapshot = "BEGIN"
    begin_alone = "BEGIN IMMEDIATE"
    versioned = "SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.dialect = Dialect("sqlite", sqlite.dialect(paramstyle="qmark"), sqlite.insert, _NOW)
        self._hot = _Statements(self.dialect)

    def connect(self, *, writer: bool) -> Connection:
        if self.path.parent.is_dir() and not self.path.exists():
            # It holds what people run: nobody else reads it. SQLite gives its log the same mode.
            self.path.touch(mode=0o600)
        raw = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, cached_statements=512)
        for pragma in _PRAGMAS + (_WRITER_PRAGMAS if writer else ("PRAGMA query_only = ON",)):
            raw.execute(pragma)
        return Connection(raw, self.dialect)

    def connect_inline(self) -> Connection | None:
        connection = self.connect(writer=False)
        connection.raw.execute("PRAGMA busy_timeout = 0")
        return connection

    def run_hot(self, connection: Connection, ops: Sequence[hot.HotOp]) -> None:
        self._hot.run(connection, ops)

    def lost(self, error: BaseException) -> bool:
        return False

    def passing(self, error: BaseException) -> bool:
        return isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode in (
            sqlite3.SQLITE_BUSY,
            sqlite3.SQLITE_LOCKED,
        )

    def translate(self, error: BaseException) -> BakehouseError:
        if isinstance(error, sqlite3.IntegrityError):
            return Conflict(f"this exists already: {error}")
        return Unavailable(f"SQLite: {error}")

    def engine(self) -> Engine:
        return create_engine(f"sqlite:///{self.path}")

    def back_up(self, revision: str) -> str | None:
        target = self.path.with_name(f"{self.path.name}.{revision}.{time.strftime('%Y%m%d-%H%M%S')}.backup")
        target.touch(mode=0o600)  # SQLite may fill an empty file
        connection = self.connect(writer=True)
        try:
            connection.raw.execute("VACUUM INTO ?", (str(target),))
        finally:
            connection.raw.close()
        return str(target)


class _Statements:
    """The hot operations, row by row: without a network between, a loop is the fastest form."""

    def __init__(self, dialect: Dialect) -> None:
        t = tasks.c
        self._accept = dialect.compile(
            sqlite.insert(tasks).on_conflict_do_nothing(
                index_elements=[t.owner_id, t.idempotency_key], index_where=t.idempotency_key.is_not(None)
            )
        )
        self._updates: dict[str, Sql] = {name: dialect.compile(update) for name, update in hot.UPDATES.items()}
        self._claim = dialect.compile(hot.CLAIM)
        self._snapshot = dialect.compile(hot.SNAPSHOT)
        self._event = dialect.compile(hot.INSERT_EVENT)

    def run(self, connection: Connection, ops: Sequence[hot.HotOp]) -> None:
        cursor = connection.raw.cursor()
        rows: list[tuple[Any, ...]] = []
        for op in ops:
            if type(op) is hot.Write:
                self._run_write(connection, cursor, op, rows)
            elif type(op) is hot.Accept:
                self._run_accept(connection, cursor, op, rows)
            elif type(op) is hot.Claim:
                self._run_claim(cursor, op, rows)
            elif type(op) is hot.Snapshots:
                cursor.executemany(self._snapshot.text, [self._values(row) for row in op.rows])
        if rows:
            cursor.executemany(self._event.text, rows)

    def _values(self, row: tuple[str, int, str]) -> tuple[Any, ...]:
        return self._snapshot.values({"p_id": row[0], "p_attempt": row[1], "p_json": row[2]})

    def _run_write(self, connection: Connection, cursor: Any, op: hot.Write, rows: list[tuple[Any, ...]]) -> None:
        sql = self._updates[op.shape]
        cursor.execute(sql.text, sql.values(op.changes))
        op.result = cursor.rowcount == 1
        if not op.result:
            return
        write = op.write
        for e in write.events:
            rows.append((write.task_id, e.seq, e.at, e.kind, int(e.status), e.attempt, e.data))
        if write.deliver is not None:
            owner = connection.one(hot.GET_OWNER, {"p_id": write.task_id})
            assert owner is not None
            connection.many(
                hot.INSERT_DELIVERY, [hot.delivery(write.task_id, owner[0], write.deliver, write.events[-1].at)]
            )

    def _run_accept(self, connection: Connection, cursor: Any, op: hot.Accept, rows: list[tuple[Any, ...]]) -> None:
        task = op.task
        cursor.execute(self._accept.text, hot.row_of(task))
        if cursor.rowcount == 0:
            earlier = connection.one(hot.EARLIER, {"p_owner": task.owner_id, "p_key": task.idempotency_key})
            assert earlier is not None
            op.result = hot.task_of(earlier)
            return
        op.result = None
        for e in op.events:
            rows.append((task.id, e.seq, e.at, e.kind, int(e.status), e.attempt, e.data))
        connection.many(hot.INSERT_FILE, [hot.link_row(link) for link in op.files])

    def _run_claim(self, cursor: Any, op: hot.Claim, rows: list[tuple[Any, ...]]) -> None:
        claimed = []
        for task_id in op.task_ids:
            params = {"p_id": task_id, "p_now": op.now, "p_holder": op.holder}
            row = cursor.execute(self._claim.text, self._claim.values(params)).fetchone()
            if row is not None:
                task = hot.task_of(row)
                claimed.append(task)
                rows.append((task.id, task.last_seq, op.now, "status", int(task.status), task.attempt, None))
        op.result = claimed
