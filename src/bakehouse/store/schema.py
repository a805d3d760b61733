"""The schema's revision: checked at every start, brought up to date when it is older, refused when it is newer."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection

from bakehouse.core.errors import Conflict, Unavailable
from bakehouse.store.driver import Driver
from bakehouse.store.tables import HEAD, metadata

log = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).with_name("migrations")


def prepare(driver: Driver, *, migrate: bool) -> None:
    """Make the schema the one that this code works with.

    Conflict: the schema is of a newer Bakehouse, or older and *migrate* is False. What exists is backed up first.
    """
    before = revision(driver)
    if before == HEAD:
        return
    if before is None:
        create(driver)
        return
    if before not in known_revisions():
        raise Conflict(
            f"the database has schema {before}, this Bakehouse knows up to {HEAD}; install the newer release again",
            code="schema_newer",
        )
    if not migrate:
        raise Conflict(
            f"the database has schema {before}, this Bakehouse needs {HEAD}; migrate it", code="schema_older"
        )
    target = driver.back_up(before)
    log.info("backed up before the migration", extra={"action": "database_backed_up", "path": target})
    upgrade(driver)


def revision(driver: Driver) -> str | None:
    """The revision of the database; None when it is empty. Raises Unavailable."""
    try:
        connection = driver.connect(writer=False)
        try:
            if connection.plain(driver.versioned).fetchone() is None:
                return None
            row = connection.plain("SELECT version_num FROM alembic_version").fetchone()
        finally:
            connection.raw.close()
    except driver.errors as error:
        raise Unavailable(f"the database cannot be opened: {error}") from error
    return row[0] if row else None


def create(driver: Driver) -> None:
    """Make the newest schema in an empty database: what all migrations together make, without their detours."""
    with _alone(driver) as connection:
        # Another server may have done it while we waited.
        if connection.exec_driver_sql(driver.versioned).first() is not None:
            return
        metadata.create_all(connection, checkfirst=False)
        connection.exec_driver_sql(_VERSION_TABLE)
        connection.exec_driver_sql(f"INSERT INTO alembic_version (version_num) VALUES ('{HEAD}')")


_VERSION_TABLE = (
    "CREATE TABLE alembic_version "
    "(version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
)


def known_revisions() -> set[str]:
    """Every revision that this code can start from."""
    from alembic.script import ScriptDirectory

    return {script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()}


def upgrade(driver: Driver, target: str = "head") -> None:
    """Run the migrations up to *target*, in one transaction where the database can."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with _alone(driver) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, target)


@contextmanager
def _alone(driver: Driver) -> Iterator[Connection]:
    """A transaction that no other server's change of the schema runs beside: the later one finds the work done."""
    engine = driver.engine()
    try:
        with engine.begin() as connection:
            connection.exec_driver_sql(driver.begin_alone)
            yield connection
    finally:
        engine.dispose()
