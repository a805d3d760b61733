"""What the sandbox offers is what the WIT file says, and what `Calls` has."""

from __future__ import annotations

import inspect
import re

from bakehouse.inferlets.sandbox import offer
from bakehouse.inferlets.sandbox.types import Signature, spell
from tests.inferlets.sandbox.support import WIT, Runner

_FUNCTION = re.compile(r"^\s*([a-z-]+): func\(([^)]*)\)(?: -> ([^;]+))?;", re.MULTILINE)


def said_by_the_file() -> dict[str, dict[str, Signature]]:
    text = re.sub(r"//.*", "", (WIT / "inferlet.wit").read_text())
    found: dict[str, dict[str, Signature]] = {}
    for interface, body in re.findall(r"^interface ([a-z-]+) \{(.*?)^\}", text, re.MULTILINE | re.DOTALL):
        for name, parameters, result in _FUNCTION.findall(body):
            types = ", ".join(each.split(":", 1)[1] for each in parameters.split(",") if each.strip())
            signature = offer.PARSER.signature(f"({types})" + (f" -> {result}" if result else ""))
            found.setdefault(interface, {})[name] = signature
    return found


def test_the_table_is_the_file() -> None:
    ours = {
        interface: {name: offer.PARSER.signature(text) for name, text in functions.items()}
        for interface, functions in offer.FUNCTIONS.items()
    }
    # What is of the program itself is not in `Calls`.
    assert ours | {"program": {"payload": offer.PARSER.signature("() -> string")}} == said_by_the_file()


def test_calls_has_every_function(guests: Runner) -> None:
    guest = guests.guest("")
    for interface, functions in offer.FUNCTIONS.items():
        for name, text in functions.items():
            method = getattr(getattr(guest.calls, interface), name.replace("-", "_"))
            assert len(inspect.signature(method).parameters) == len(offer.PARSER.signature(text).parameters), name
    guest.close()


def test_types_are_spelled_as_they_are_read() -> None:
    for functions in offer.FUNCTIONS.values():
        for text in functions.values():
            signature = offer.PARSER.signature(text)
            for each in (*signature.parameters, signature.result):
                assert each is None or offer.PARSER.type(spell(each)) == each
