"""Fixtures for every room: ``postgres``, ``postgres_url``, ``start_server``, ``bakehouse_server``."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.postgres import Postgres, running_postgres
from tests.support.server import Server

StartServer = Callable[..., Server]

# Hundreds of processes start in a run: what one has compiled, the others load.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Started in the background of a shell, a run would have Ctrl-C ignored by all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


HERE = Path(__file__).parent
FIRST = (
    *("crash", "docs", "interop", "inferlets/examples", "examples", "e2e", "inferlets/platform", "faults", "replicas"),
    *("inferlets/cli", "inferlets/bakery", "cli", "reference", "sdk", "build", "launch", "store", "api"),
)
"""Folders whose files take long, for their processes or their clocks. A worker gets whole files, in this order: one of
these at the end of a run would keep the others waiting."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ranks = {HERE / folder: rank for rank, folder in enumerate(FIRST)}
    items.sort(key=lambda item: ranks.get(item.path.parent, len(ranks)))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real PostgreSQL, started at the first use and shared by the run's workers."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """``postgresql://...`` of a database that is empty and this test's own."""
    url = postgres.create_database()
    yield url
    postgres.drop_database(url)


@pytest.fixture(scope="module")
def module_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """`start_server` for a whole module: every server that it made is killed after the module's last test."""
    yield from _servers(tmp_path_factory)


@pytest.fixture
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """Start servers of your own: ``start_server(database=URL, arguments=[...], env={...}, home=PATH)``.

    They are killed after the test. Kill, stop and restart them as you like before.
    """
    yield from _servers(tmp_path_factory)


@pytest.fixture(scope="module")
def bakehouse_server(module_servers: StartServer) -> Server:
    """A running server on embedded defaults for all tests of the module; it has ``deploy(app_dir)`` and ``run``."""
    return module_servers()


def _servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    with ExitStack() as stack:

        def start(home: Path | None = None, **options: Any) -> Server:
            server = Server(home or tmp_path_factory.mktemp("server") / "home", **options)
            stack.callback(server.kill)
            return server.start()

        yield start
