"""Durable truth. One contract (``base``), SQLite and PostgreSQL behind it. Only ``service`` and ``dispatch`` call it."""

from bakehouse.store.choice import open_store

__all__ = ["open_store"]
