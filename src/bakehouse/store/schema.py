"""The schema's revision: checked at every start, brought up to date when it is older, refused when it is newer."""

from __future__ import annotations

import logging
from pathlib import Path

from bakehouse.core.errors import Conflict, Unavailable
from bakehouse.store.driver import Driver
from bakehouse.store.tables import HEAD

log = logging.getLogger(__name__)

MIGRATIONS = Path(__file__).with_name("migrations")


def prepare(driver: Driver, *, migrate: bool) -> None:
    """Make the schema the one that this code works with.

    Conflict: the schema is of a newer Bakehouse, or older and *migrate* is False. What exists is backed up first.
    """
    before = revision(driver)
    if before == HEAD:
        return
    if before is not None and before not in known_revisions():
        raise Conflict(
            f"the database has schema {before}, this Bakehouse knows up to {HEAD}; install the newer release again",
            code="schema_newer",
        )
    if before is not None and not migrate:
        raise Conflict(
            f"the database has schema {before}, this Bakehouse needs {HEAD}; migrate it", code="schema_older"
        )
    if before is not None:
        target = driver.back_up(before)
        log.info("backed up before the migration", extra={"action": "database_backed_up", "path": target})
    upgrade(driver)


def revision(driver: Driver) -> str | None:
    """The revision of the database; None when it is empty."""
    from alembic.runtime.migration import MigrationContext
    from sqlalchemy.exc import DBAPIError

    engine = driver.engine()
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    except DBAPIError as error:
        raise Unavailable(f"the database cannot be reached: {error.orig}") from error
    finally:
        engine.dispose()


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
    engine = driver.engine()
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                # Two servers that start together: the second one waits, and then finds nothing to do.
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(4842100317)")
            config.attributes["connection"] = connection
            command.upgrade(config, target)
    finally:
        engine.dispose()
