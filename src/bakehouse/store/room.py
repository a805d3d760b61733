"""What every part of the SQL store stands on: reads in a few threads, changes through the writer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from bakehouse.core.clock import Clock
from bakehouse.core.errors import BakehouseError, NotFound, Unavailable
from bakehouse.store.base import Store
from bakehouse.store.connection import Connection, Dialect
from bakehouse.store.driver import Driver
from bakehouse.store.writer import OnCommit, Writer

READERS = 4

T = TypeVar("T")


class SqlRoom(Store):
    """Connections and threads. The nouns are in the classes below this one, put together in ``sql.SqlStore``."""

    def __init__(self, driver: Driver, clock: Clock, on_commit: OnCommit | None = None) -> None:
        self._driver, self._clock, self._on_commit = driver, clock, on_commit
        self._writer: Writer | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._local = threading.local()
        self._readers: list[Connection] = []
        self._inline: Connection | None = None

    @property
    def _dialect(self) -> Dialect:
        return self._driver.dialect

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
        connection = await loop.run_in_executor(self._pool, self._connect_writer)
        self._inline = self._driver.connect_inline()
        self._writer = Writer(self._driver, loop, self._on_commit)
        self._writer.start(connection)

    async def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            await writer.close()
        pool, self._pool = self._pool, None
        if pool is not None:
            await asyncio.to_thread(pool.shutdown)
        inline, self._inline = self._inline, None
        for reader in [*self._readers, *([inline] if inline else [])]:
            reader.raw.close()
        self._readers.clear()

    def _connect_writer(self) -> Connection:
        try:
            return self._driver.connect(writer=True)
        except self._driver.errors as error:
            raise Unavailable(f"the database cannot be opened: {error}") from error

    def _submit(self, work: Any, *, lazy: bool = False) -> asyncio.Future[Any]:
        if self._writer is None:
            raise Unavailable("the store is not open")
        return self._writer.submit(work, lazy=lazy)

    async def _change(self, work: Callable[[Connection], T]) -> T:
        """Run *work* in the writer's next transaction and return its value once that is durable."""
        value: T = await self._submit(work)
        return value

    async def _read(self, work: Callable[[Connection], T]) -> T:
        """Run *work* on a reading connection in a thread."""
        if self._pool is None:
            raise Unavailable("the store is not open")
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._read_here, work)

    async def _read_point(self, work: Callable[[Connection], T]) -> T:
        """Like ``_read`` for a look-up by key: where that takes microseconds, the hop to a thread costs more."""
        if self._inline is not None:
            try:
                return work(self._inline)
            except self._driver.errors as error:
                if not self._driver.passing(error):
                    raise self._driver.translate(error) from error
        return await self._read(work)  # which may wait

    def _read_here(self, work: Callable[[Connection], T]) -> T:
        try:
            return self._translated(work, self._reader())
        except BakehouseError as error:
            if not isinstance(error.__cause__, self._driver.errors) or not self._driver.lost(error.__cause__):
                raise
        self._drop_reader()
        return self._translated(work, self._reader())  # a read may be repeated: once, on a new connection

    def _translated(self, work: Callable[[Connection], T], connection: Connection) -> T:
        try:
            return work(connection)
        except self._driver.errors as error:
            raise self._driver.translate(error) from error

    def _reader(self) -> Connection:
        connection: Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            try:
                connection = self._driver.connect(writer=False)
            except self._driver.errors as error:
                raise self._driver.translate(error) from error
            self._local.connection = connection
            self._readers.append(connection)
        return connection

    def _drop_reader(self) -> None:
        connection: Connection = self._local.connection
        self._local.connection = None
        self._readers.remove(connection)
        connection.raw.close()


def found(row: tuple[Any, ...] | None, what: str) -> tuple[Any, ...]:
    """*row*, or NotFound that names *what*."""
    if row is None:
        raise NotFound(f"no {what}")
    return row
