"""Durable truth. One contract (``base``), SQLite and PostgreSQL behind it. Only ``service`` and ``dispatch`` call it."""
