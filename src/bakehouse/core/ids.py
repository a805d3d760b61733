"""Identifiers: ``<kind>_<ulid>``, sortable by creation time, never derived from names.

A ULID is 48 bits of milliseconds and 80 random bits, written as 26 Crockford base-32 characters
(https://github.com/ulid/spec). Ours are lower-case: a 32-digit hexadecimal id would look like base64 data
to published clients, which upload such strings as files.
"""

from __future__ import annotations

import os
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
# Two characters at a time: 1024 pairs make the encoding of 130 bits thirteen look-ups.
_PAIRS = tuple(a + b for a in _ALPHABET for b in _ALPHABET)


def ulid() -> str:
    """A new 26-character lower-case ULID."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    return "".join([_PAIRS[(value >> shift) & 1023] for shift in range(120, -1, -10)])


def new_id(kind: str) -> str:
    """A new id such as ``task_01j...`` for the noun *kind*."""
    return f"{kind}_{ulid()}"


def short_id(identifier: str) -> str:
    """The last eight characters of an id: random, fit for people, not unique by promise."""
    return identifier[-8:]
