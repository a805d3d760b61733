"""The schema: what migrations make is what the code describes, older is migrated after a backup, newer is refused."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from bakehouse.core.errors import Conflict
from bakehouse.store import open_store
from bakehouse.store import schema as schemas
from bakehouse.store.choice import driver_for
from bakehouse.store.driver import Driver
from bakehouse.store.schema import MIGRATIONS, create, revision, upgrade
from bakehouse.store.tables import HEAD, metadata
from tests.store.samples import queued


@pytest.fixture
def driver(store_url: str) -> Driver:
    return driver_for(store_url)


def structure(driver: Driver) -> list[Any]:
    """Tables and indexes as the database itself writes them down."""
    queries = {
        "sqlite": "SELECT tbl_name, name, sql FROM sqlite_master",
        "postgresql": "SELECT c.table_name, c.column_name, concat_ws(' ', data_type, is_nullable, column_default) "
        "FROM information_schema.columns c WHERE table_schema = 'public' UNION "
        "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    }
    connection = driver.connect(writer=True)
    try:
        rows = connection.plain(queries[driver.dialect.name]).fetchall()
    finally:
        connection.raw.close()
    return sorted((table, name, sorted(re.findall(r"[^\s(),]+", sql or ""))) for table, name, sql in rows)


def test_a_migrated_schema_is_a_fresh_one(driver: Driver) -> None:
    upgrade(driver)
    migrated = structure(driver)
    engine = driver.engine()
    with engine.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        metadata.drop_all(connection)
        connection.execute(text("DROP TABLE alembic_version"))
    engine.dispose()
    create(driver)
    assert structure(driver) == migrated
    assert revision(driver) == HEAD
    assert len(migrated) > 20


def test_the_code_names_the_newest_migration() -> None:
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == HEAD


async def test_opening_migrates_an_empty_database(store_url: str, driver: Driver) -> None:
    assert revision(driver) is None
    store = open_store(store_url)
    await store.open()
    await store.close()
    assert revision(driver) == HEAD


def set_revision(driver: Driver, value: str) -> None:
    engine = driver.engine()
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :value"), {"value": value})
    engine.dispose()


async def test_a_newer_schema_is_refused(store_url: str, driver: Driver) -> None:
    upgrade(driver)
    set_revision(driver, "9999")
    with pytest.raises(Conflict) as refusal:
        await open_store(store_url).open()
    assert refusal.value.code == "schema_newer"
    assert "9999" in refusal.value.detail
    assert revision(driver) == "9999"


async def test_an_older_schema_is_backed_up_and_migrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is one migration so far: the database is older because the code is told that it needs more."""
    url = f"sqlite:///{tmp_path / 'a.db'}"
    store = open_store(url)
    await store.open()
    task = await queued(store)
    await store.close()
    monkeypatch.setattr(schemas, "HEAD", "0002")
    with pytest.raises(Conflict) as refusal:
        await open_store(url, migrate=False).open()
    assert refusal.value.code == "schema_older"
    assert list(tmp_path.glob("*.backup")) == []
    store = open_store(url)
    await store.open()
    await store.close()
    (backup,) = tmp_path.glob("a.db.0001.*.backup")
    with sqlite3.connect(backup) as connection:
        assert connection.execute("SELECT id FROM tasks").fetchall() == [(task.id,)]
    connection.close()
    assert backup.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("module", ["bakehouse.store", "bakehouse.store.base", "bakehouse.store.sqlite"])
def test_no_driver_is_imported_unless_chosen(module: str) -> None:
    code = f"import sys, {module}; sys.exit('psycopg' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_schema_is_made_whole_or_not_at_all(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemas, "_VERSION_TABLE", "not a statement")
    with pytest.raises(DatabaseError):
        create(driver)
    assert structure(driver) == []
    monkeypatch.undo()
    create(driver)
    create(driver)
    assert revision(driver) == HEAD
