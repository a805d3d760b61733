"""Bulk values as the strings in which they cross the sandbox's border: one character per byte, files in base64.

UTF-8 takes two bytes for a byte above 127 and much time for a mixture of both, so what is as random as a file crosses
twice as fast in base64. Ids and masks are mostly zeros.
"""

from __future__ import annotations

import binascii
import sys
from array import array
from collections.abc import Iterable

from bakehouse.engine.errors import BadRequest
from bakehouse.inferlets.errors import Refused


def pack(data: bytes) -> str:
    return data.decode("latin-1")


def unpack(text: str, field: str = "data") -> bytes:
    """Raises `BadRequest` for a character that is no byte."""
    try:
        return text.encode("latin-1")
    except (UnicodeEncodeError, AttributeError):
        raise BadRequest.at(field, "must be packed: characters from 0 to 255, one for each byte") from None


def pack_file(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def unpack_file(text: str, limit: int) -> bytes:
    """Raises `BadRequest` for what is not base64, `Refused` for more than *limit* bytes."""
    if not isinstance(text, str):
        raise BadRequest.at("data", f"must be base64, not {type(text).__name__}")
    if len(text) * 3 // 4 <= limit + 2:  # which may be padding
        try:
            data = binascii.a2b_base64(text, strict_mode=True)
        except ValueError as error:
            raise BadRequest.at("data", f"must be base64: {error}") from None
        if len(data) <= limit:
            return data
    raise Refused(f"file: a file may have at most {limit} bytes", field="file")


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
