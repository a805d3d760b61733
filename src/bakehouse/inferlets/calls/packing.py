"""Bulk values as the strings in which they cross the sandbox's border: one character per byte."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable

from bakehouse.engine.errors import BadRequest


def pack(data: bytes) -> str:
    return data.decode("latin-1")


def unpack(text: str, field: str = "data") -> bytes:
    """Raises `BadRequest` for a character that is no byte."""
    try:
        return text.encode("latin-1")
    except (UnicodeEncodeError, AttributeError):
        raise BadRequest.at(field, "must be packed: characters from 0 to 255, one for each byte") from None


def pack_ids(ids: Iterable[int]) -> str:
    return pack(little_endian(array("I", ids)))


def unpack_ids(text: str, field: str = "ids") -> array[int]:
    """Unsigned 32-bit integers. Raises `BadRequest` for anything else."""
    data = unpack(text, field)
    if len(data) % 4:
        raise BadRequest.at(field, f"packed ids have 4 bytes each; {len(data)} bytes came")
    ids = array("I", data)
    if sys.byteorder == "big":
        ids.byteswap()
    return ids


def little_endian(values: array[int] | array[float]) -> bytes:
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values.tobytes()
