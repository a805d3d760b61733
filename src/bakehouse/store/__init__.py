"""Durable truth. One contract (``base``), on SQLite and on PostgreSQL. Only ``service`` and ``dispatch`` call it."""

from bakehouse.store.choice import open_store

__all__ = ["open_store"]
