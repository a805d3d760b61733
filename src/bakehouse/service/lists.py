"""The words of list queries, for rooms that may not know the store."""

from bakehouse.store.base import Filter, ListQuery, Page

__all__ = ["Filter", "ListQuery", "Page"]
