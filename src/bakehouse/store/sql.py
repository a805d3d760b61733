"""The store over SQL: all parts of the contract together, and opening it."""

from __future__ import annotations

import asyncio

from bakehouse.core.clock import Clock
from bakehouse.store import integrity
from bakehouse.store.apps import AppRoom
from bakehouse.store.connection import Connection
from bakehouse.store.driver import Driver
from bakehouse.store.files import FileRoom
from bakehouse.store.identity import IdentityRoom
from bakehouse.store.leases import LeaseRoom
from bakehouse.store.schema import prepare
from bakehouse.store.sessions import SessionRoom
from bakehouse.store.tasks import TaskRoom
from bakehouse.store.writer import OnCommit


class SqlStore(TaskRoom, LeaseRoom, IdentityRoom, AppRoom, FileRoom, SessionRoom):
    """The contract on one database; ``driver`` says which. ``migrate`` False refuses an older schema."""

    def __init__(
        self, driver: Driver, clock: Clock, *, migrate: bool = True, on_commit: OnCommit | None = None
    ) -> None:
        super().__init__(driver, clock, on_commit)
        self._migrate = migrate

    async def open(self) -> None:
        await asyncio.to_thread(prepare, self._driver, migrate=self._migrate)
        await self._start()

    async def check_integrity(self) -> list[str]:
        def check(connection: Connection) -> list[str]:
            connection.plain(self._driver.begin_snapshot)
            try:
                return integrity.check(connection)
            finally:
                connection.plain("ROLLBACK")

        return await self._read(check)
