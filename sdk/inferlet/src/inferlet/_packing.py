"""Values as the strings in which they cross the sandbox's border: numbers and bytes with a character per byte, files in
base64, the rest as JSON."""

from __future__ import annotations

import binascii
import json
import sys
from array import array
from collections.abc import Iterable
from typing import Any

from inferlet.errors import BadRequest


def pack_bytes(data: bytes) -> str:
    return data.decode("latin-1")


def unpack_bytes(text: str) -> bytes:
    return text.encode("latin-1")


def pack_file(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def unpack_file(text: str) -> bytes:
    return binascii.a2b_base64(text)


def pack_ids(ids: Iterable[int]) -> str:
    """As little-endian unsigned 32-bit integers. Raises `OverflowError` or `TypeError` for what is none."""
    # Bytes are ids too, one each, as of every iterable; an array would take four of them for one.
    packed = (
        ids
        if isinstance(ids, array) and ids.typecode == "I"
        else array("I", iter(ids) if isinstance(ids, (bytes, bytearray)) else ids)
    )
    if sys.byteorder == "big":
        packed = array("I", packed)
        packed.byteswap()
    return packed.tobytes().decode("latin-1")


def unpack_ids(text: str) -> array[int]:
    ids = array("I")
    ids.frombytes(text.encode("latin-1"))
    if sys.byteorder == "big":
        ids.byteswap()
    return ids


def unpack_floats(text: str) -> array[float]:
    """Little-endian float32."""
    floats = array("f")
    floats.frombytes(text.encode("latin-1"))
    if sys.byteorder == "big":
        floats.byteswap()
    return floats


def pack_json(value: Any) -> str:
    """Numbers and arrays of other libraries, such as numpy and torch, count as those of Python. Raises `BadRequest`."""
    try:
        return _ENCODE(value)
    except ValueError as error:  # not a number, or infinite
        raise BadRequest(f"a number is wanted: {error}") from None


def _of_python(value: Any) -> Any:
    if not hasattr(value, "tolist"):
        raise TypeError(f"{value!r}, a {type(value).__name__}, is none of the values that a host takes here")
    return value.tolist()


#: Made once: `json.dumps` with options makes one each time.
_ENCODE = json.JSONEncoder(default=_of_python, allow_nan=False).encode
