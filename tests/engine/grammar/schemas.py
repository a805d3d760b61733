"""Random schemas and random regular expressions of bounded size, each with a checker that is not ours."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jsonschema_rs

from bakehouse.engine.params import GrammarSpec

FORMATS = ("date", "time", "date-time", "email", "uuid", "ipv4", "ipv6", "hostname", "duration")
PATTERNS = (r"^[a-z]{1,8}$", r"[A-Z]{2}-\d{1,3}", r"^(?:yes|no|q\"\\)$", r"^[^\x00-\x1f\"]{2,5}$", r"^\w+\s\S$")
NAMES = ("a", "b", "long name", 'quo"te', "é", "id", "items", "x_1")


@dataclass(frozen=True, slots=True)
class Case:
    """``ends``: every text has a longest form, so that not even the worst sampler can go on without end."""

    spec: GrammarSpec
    valid: Callable[[str], bool]
    ends: bool = True


def random_case(seed: int) -> Case:
    rng = random.Random(seed)
    return regex_case(rng) if rng.random() < 0.25 else schema_case(rng)


def schema_case(rng: random.Random) -> Case:
    recurs = rng.random() < 0.08
    return of_schema(tree(rng) if recurs else Schemas(rng).schema(3), ends=not recurs)


def of_schema(schema: dict[str, Any], ends: bool) -> Case:
    checker = jsonschema_rs.validator_for(schema, validate_formats=True)
    return Case(GrammarSpec("json_schema", json.dumps(schema)), lambda text: checker.is_valid(json.loads(text)), ends)


def endless_case(seed: int) -> Case:
    """A grammar with parts of any length or depth."""
    rng = random.Random(seed)
    kinds: list[dict[str, Any]] = [
        {"type": "object", "additionalProperties": Schemas(rng).schema(1)},
        {"type": "array", "items": Schemas(rng).schema(1)},
        {"type": "object", "properties": {"any": True, "text": {"type": "string"}}, "required": ["any"]},
        {"type": "string", "pattern": "^[a-z]+-"},
        {"type": "array", "items": {}},
        tree(rng),
    ]
    return of_schema(rng.choice(kinds), ends=False)


def tree(rng: random.Random) -> dict[str, Any]:
    """A schema that refers to itself: each text is finite, but as deep as one likes."""
    child = {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}
    properties = {"v": Schemas(rng).schema(0), "left": child, "right": child}
    node = {"type": "object", "properties": properties, "required": ["v", *rng.sample(["left", "right"], k=1)]}
    return {"$defs": {"node": node}, "type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2}


class Schemas:
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def schema(self, depth: int) -> dict[str, Any]:
        kinds = [self.string, self.string, self.integer, self.number, self.literal, self.types]
        if depth:
            kinds += [self.object, self.object, self.object, self.array, self.array, self.any_of, self.combined]
        return self.rng.choice(kinds)(depth)

    def string(self, _: int) -> dict[str, Any]:
        kind = self.rng.random()
        if kind < 0.25:
            return {"type": "string", "format": self.rng.choice(FORMATS)}
        if kind < 0.5:
            return {"type": "string", "pattern": self.rng.choice(PATTERNS[:4])}
        low = self.rng.randrange(4)
        return {"type": "string", "minLength": low, "maxLength": low + self.rng.randrange(12)}

    def integer(self, _: int) -> dict[str, Any]:
        return {"type": "integer", **self.bounds(1)}

    def number(self, _: int) -> dict[str, Any]:
        return {"type": "number", **self.bounds(0.25)}

    def bounds(self, unit: float) -> dict[str, Any]:
        low = self.rng.randrange(-2000, 2000) * unit
        high = low + self.rng.randrange(2, 1000) * unit
        words = {"minimum": low, "exclusiveMinimum": low, "maximum": high, "exclusiveMaximum": high}
        chosen = self.rng.choice(
            [(), ("minimum",), ("maximum",), ("minimum", "maximum"), ("exclusiveMinimum", "maximum")]
        )
        step = {"multipleOf": self.rng.choice([2, 5])} if unit == 1 and self.rng.random() < 0.2 and not chosen else {}
        return {word: words[word] for word in chosen} | step

    def literal(self, _: int) -> dict[str, Any]:
        values = ["x", "two words", 'a"b', 1, -2.5, None, True, {"k": [1, "v"]}, []]
        if self.rng.random() < 0.3:
            return {"const": self.rng.choice(values)}
        return {"enum": self.rng.sample(values, self.rng.randrange(1, 5))}

    def types(self, _: int) -> dict[str, Any]:
        return {"type": self.rng.sample(["integer", "boolean", "null", "number"], 2)}

    def array(self, depth: int) -> dict[str, Any]:
        low = self.rng.randrange(3)
        schema: dict[str, Any] = {"type": "array", "items": self.schema(depth - 1), "minItems": low}
        schema["maxItems"] = low + self.rng.randrange(3)
        if self.rng.random() < 0.3:
            schema["prefixItems"] = [self.schema(depth - 1) for _ in range(2)]
        return schema

    def object(self, depth: int) -> dict[str, Any]:
        names = self.rng.sample(NAMES, self.rng.randrange(5))
        required = [name for name in names if self.rng.random() < 0.6]
        return {"type": "object", "properties": {n: self.schema(depth - 1) for n in names}, "required": required}

    def any_of(self, depth: int) -> dict[str, Any]:
        return {"anyOf": [self.schema(depth - 1) for _ in range(self.rng.randrange(1, 4))]}

    def combined(self, depth: int) -> dict[str, Any]:
        """Parts that describe one object together."""
        first, second, third = self.rng.sample(NAMES, 3)
        parts = [{"properties": {n: self.schema(depth - 1)}, "required": [n]} for n in (second, third)]
        own = {"type": "object", "properties": {first: self.schema(depth - 1)}, "required": [first]}
        return own | {self.rng.choice(["anyOf", "oneOf", "allOf"]): parts}


def regex_case(rng: random.Random) -> Case:
    source = expression(rng, 3)
    checker = re.compile(source, re.ASCII)
    return Case(GrammarSpec("regex", source), lambda text: checker.fullmatch(text) is not None)


def expression(rng: random.Random, depth: int) -> str:
    """An expression whose texts end, that means the same to Python."""
    atoms = ["a", "bc", r"\.", r"[0-9a-f]", r"[^a-z\s]", r"\d", r"\w", "é", r"\u00e9", "[α-ω]", r"\x41", r"\/"]
    if depth == 0:
        return rng.choice(atoms)
    parts = [expression(rng, depth - 1) for _ in range(rng.randrange(1, 4))]
    body = "|".join(parts) if rng.random() < 0.4 else "".join(f"(?:{part})" for part in parts)
    return f"(?:{body})" + rng.choice(["", "", "?", "{2}", "{0,3}", "{1,2}"])
