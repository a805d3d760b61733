"""Programs that bring nothing but their own modules: they share one component, and differ in what is behind it.

The component is built once for an SDK: it holds the SDK and what programs mostly import from the standard library. Such
a program is built in a moment, and its machine code is made and kept once, for all of them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, cast

from bakehouse.inferlets.bakery.component import problems_in
from bakehouse.inferlets.bakery.problems import BadProject, BuildFailed
from bakehouse.inferlets.bakery.selection import Selection
from bakehouse.inferlets.base import MIB, Failure, Launch, Limits
from bakehouse.inferlets.family import Family
from bakehouse.inferlets.payload import join

if TYPE_CHECKING:
    from bakehouse.inferlets.calls.guest import Guest

#: A program whose own files are larger gets a component of its own, where they are there without being handed over.
MAX_FILES = 2 * MIB

_MODULES = """
abc argparse array ast asyncio base64 binascii bisect calendar cmath collections.abc colorsys configparser contextlib
contextvars copy csv dataclasses datetime decimal difflib enum errno fnmatch fractions functools gc graphlib hashlib
heapq hmac html html.entities html.parser importlib.resources inspect io itertools json json.decoder json.encoder
keyword linecache locale logging marshal math numbers operator os pathlib pickle pprint queue random re reprlib
secrets shlex statistics string struct sys textwrap time timeit tokenize tomllib traceback types typing unicodedata
urllib.parse uuid warnings weakref xml.etree.ElementTree zlib __future__ _strptime encodings.ascii encodings.latin_1
"""
MODULES = _MODULES.split()
"""What the shared component has of the standard library ready; the rest is compiled where it is imported."""


def is_small(selection: Selection) -> bool:
    return sum(path.stat().st_size for path in selection.files.values()) <= MAX_FILES


def payload_of(component: bytes, entry: str, selection: Selection, compiled: Path) -> bytes:
    """What the shared *component* needs behind it to be the program.

    The program's modules are compiled by the component itself, in a sandbox that keeps machine code below *compiled*.
    Raises `BadProject` for what is no Python to it, `BuildFailed`.
    """
    from bakehouse.inferlets.sandbox import Sandbox

    request = {
        "entry": entry,
        "files": {inside: path.read_bytes().decode("latin-1") for inside, path in selection.files.items()},
    }
    said: list[str] = []
    sandbox = Sandbox(compiled)
    try:
        program = sandbox.compile(join(component, json.dumps(request).encode("ascii")))
        outcome = sandbox.run(program, cast("Guest", _Nobody()), lambda stream, text: said.append(text))
    finally:
        sandbox.close()
    if outcome.failure is not None:
        if found := problems_in("\n".join(said)):
            raise BadProject(found)
        raise BuildFailed(f"the program could not be compiled: {outcome.failure.message}", "\n".join(said))
    return outcome.result.encode("latin-1")


class _Nobody:
    """Compiling asks the host for nothing, so there is no guest; this is what the sandbox looks at."""

    def __init__(self) -> None:
        self.launch = Launch(id="bakery", owner="", username="", program="", limits=Limits(memory=512 * MIB, cpu=120))
        self.failure: Failure | None = None
        self.calls = None
        self.family = Family()

    def end(self, failure: Failure) -> None:
        self.failure = failure
