"""What a database's own file provides: connections, its errors in our words, and its hot statements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from sqlalchemy import Engine

from bakehouse.core.errors import BakehouseError
from bakehouse.store.connection import Connection, Dialect
from bakehouse.store.hot import HotOp


class Driver(ABC):
    """One database, known by its URL. Methods are called from worker threads and block."""

    dialect: Dialect
    errors: type[Exception]
    begin: str
    begin_snapshot: str
    """Begins a read that sees one state of the database throughout."""
    begin_alone: str
    """Run first in the transaction that changes the schema: it waits for any other such transaction."""
    versioned: str
    """Answers a row when the database has the table of the schema's revision."""

    @abstractmethod
    def connect(self, *, writer: bool) -> Connection:
        """A new connection, durable as the contract says. Raises driver errors."""

    def connect_inline(self) -> Connection | None:
        """A connection for point reads on the event loop, where these take microseconds; it never waits for a lock."""
        return None

    @abstractmethod
    def run_hot(self, connection: Connection, ops: Sequence[HotOp]) -> None:
        """Apply *ops* inside the open transaction, in order per task, and set their ``result``."""

    @abstractmethod
    def lost(self, error: BaseException) -> bool:
        """Whether the connection is gone: nothing more can be done with it."""

    @abstractmethod
    def passing(self, error: BaseException) -> bool:
        """Whether the same transaction may succeed when it is run again (a deadlock, a serialisation failure)."""

    @abstractmethod
    def translate(self, error: BaseException) -> BakehouseError:
        """A driver error in the words of ``core.errors``."""

    @abstractmethod
    def engine(self) -> Engine:
        """A SQLAlchemy engine for the migrations."""

    @abstractmethod
    def back_up(self, revision: str) -> str | None:
        """Copy the database aside before a migration; where to. None: its operator does that."""
