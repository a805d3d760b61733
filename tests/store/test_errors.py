"""No driver's error gets out: each class of each driver has a word of ours."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import psycopg
import pytest
from psycopg import errors

from bakehouse.core.errors import BakehouseError, Conflict, Invalid, Unavailable
from bakehouse.store.postgres import PostgresDriver
from bakehouse.store.sqlite import SqliteDriver


def below(root: type[Exception]) -> list[type[Exception]]:
    found = {root}
    for child in root.__subclasses__():
        found.update(below(child))
    return sorted(found, key=lambda kind: kind.__qualname__)


def test_every_error_of_both_drivers_is_translated() -> None:
    kinds = below(psycopg.Error)
    assert len(kinds) > 200
    for kind in kinds:
        assert isinstance(PostgresDriver("").translate(kind("x")), BakehouseError)
    for kind in below(sqlite3.Error):
        assert isinstance(SqliteDriver(Path("x")).translate(kind("x")), BakehouseError)


@pytest.mark.parametrize(
    ("error", "lost", "passing", "told"),
    [
        (errors.DeadlockDetected("x"), False, True, Unavailable),
        (errors.SerializationFailure("x"), False, True, Unavailable),
        (errors.AdminShutdown("x"), True, False, Unavailable),
        (errors.CannotConnectNow("x"), True, False, Unavailable),
        (errors.ConnectionFailure("x"), True, False, Unavailable),
        (psycopg.OperationalError("server closed the connection unexpectedly"), True, False, Unavailable),
        (errors.DiskFull("x"), False, False, Unavailable),
        (errors.UniqueViolation("x"), False, False, Conflict),
        (errors.NumericValueOutOfRange("x"), False, False, Invalid),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_what_postgres_says(error: Exception, lost: bool, passing: bool, told: type[Exception]) -> None:
    driver = PostgresDriver("")
    behind = errors.PipelineAborted("x")
    behind.__context__ = error  # as psycopg tells the error of one statement to those after it
    for said in (error, behind):
        assert (driver.lost(said), driver.passing(said)) == (lost, passing)
        assert type(driver.translate(said)) is told
