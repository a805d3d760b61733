"""Bytes. One contract (``base``), the local disk behind it. What files there are is the store's to know."""
