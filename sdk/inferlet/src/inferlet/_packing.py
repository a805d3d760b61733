"""Numbers and bytes as the strings in which they cross the sandbox's border: a character per byte, files in base64."""

from __future__ import annotations

import binascii
import sys
from array import array
from collections.abc import Iterable


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
    packed = ids if isinstance(ids, array) and ids.typecode == "I" else array("I", ids)
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
