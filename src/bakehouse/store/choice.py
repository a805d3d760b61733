"""Which database, chosen by URL. A driver is imported only when it was chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bakehouse.core.clock import Clock, SystemClock
from bakehouse.core.errors import NotConfigured
from bakehouse.store.base import Store
from bakehouse.store.driver import Driver


def open_store(
    url: str,
    *,
    clock: Clock | None = None,
    migrate: bool = True,
    on_commit: Callable[[int, float], None] | None = None,
) -> Store:
    """The store behind *url* (``sqlite:////absolute/path`` or ``postgresql://...``); ``await store.open()`` comes next.

    ``migrate``: bring an older schema up to date on opening, after a backup. ``on_commit`` is told of each commit's
    number of changes and seconds, in the writer's thread. Raises NotConfigured for other URLs and for a driver that is
    not installed.
    """
    from bakehouse.store.sql import SqlStore

    return SqlStore(driver_for(url), clock or SystemClock(), migrate=migrate, on_commit=on_commit)


def driver_for(url: str) -> Driver:
    """The driver behind *url*. Raises NotConfigured."""
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        from bakehouse.store.sqlite import SqliteDriver

        return SqliteDriver(Path(rest[1:]))
    if scheme in ("postgresql", "postgres"):
        try:
            from bakehouse.store.postgres import PostgresDriver
        except ModuleNotFoundError as error:
            raise NotConfigured(f"PostgreSQL needs the extra: pip install 'bakehouse[postgres]' ({error})") from error
        return PostgresDriver(url)
    raise NotConfigured(f"unknown database URL {scheme}://...; use sqlite:////path or postgresql://user@host/name")
