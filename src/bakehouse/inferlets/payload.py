"""A program's file: a component, and behind it the program's own code, where the component is one that many share.

The code is the content of the file's last section, a custom one, which leaves the file a valid component. Programs that
bring nothing but their own modules differ in that section only; so they share the machine code of one component.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import BinaryIO

from bakehouse.inferlets.base import MIB
from bakehouse.inferlets.errors import BadProgram

#: Bytes of a program's own code. It is kept in memory as long as the program is.
MAX_PAYLOAD = 32 * MIB

SECTION = b"bakery:program"
_PREAMBLE = 8
_CUSTOM = 0


def join(component: bytes, payload: bytes) -> bytes:
    """One file of both."""
    content = _leb(len(SECTION)) + SECTION + payload
    return component + bytes([_CUSTOM]) + _leb(len(content)) + content


def split(wasm: bytes) -> tuple[int, bytes | None]:
    """How many bytes of a file are its component, and the payload behind it, or None.

    Raises `BadProgram` for a payload that is too long.
    """
    return _split(io.BytesIO(wasm), len(wasm))


def split_file(path: Path) -> tuple[int, bytes | None]:
    """The same of a file, most of which is not read. Raises OSError, too."""
    with path.open("rb") as file:
        return _split(file, path.stat().st_size)


def _split(file: BinaryIO, size: int) -> tuple[int, bytes | None]:
    """What is no WebAssembly has no payload; that it is none, others say."""
    at = start = _PREAMBLE
    kind = -1
    sections = 0
    while at < size:
        sections += 1
        if sections > _MOST_SECTIONS:
            return size, None
        file.seek(at)
        head = file.read(1 + _LONGEST)
        length, used = _unleb(head, 1)
        start, kind = at, head[0]
        at += used + length
        if not used:
            return size, None
    if at != size or kind != _CUSTOM:
        return size, None
    file.seek(start)
    content = file.read(1 + 2 * _LONGEST + len(SECTION))
    name_length, name_at = _unleb(content, _unleb(content, 1)[1])
    end = name_at + name_length
    if not name_at or content[name_at:end] != SECTION:
        return size, None
    length = size - start - end
    if length > MAX_PAYLOAD:
        text = f"the code behind its component has {length} bytes; {MAX_PAYLOAD} are possible"
        raise BadProgram(text, field="wasm")
    file.seek(start + end)
    return start, file.read(length)


_LONGEST = 5
#: A component of Python has some hundred sections. Millions of empty ones would only keep us busy.
_MOST_SECTIONS = 100_000


def _leb(number: int) -> bytes:
    """An unsigned number in seven bits a byte, lowest first, all but the last with the eighth bit set."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*found, number])


def _unleb(data: bytes, at: int) -> tuple[int, int]:
    """The number at *at*, and where it ends; (0, 0) where there is none."""
    number = 0
    for shift in range(_LONGEST):
        if at + shift >= len(data):
            break
        byte = data[at + shift]
        number |= (byte & 0x7F) << 7 * shift
        if byte < 0x80:
            return number, at + shift + 1
    return 0, 0
