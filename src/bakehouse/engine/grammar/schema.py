"""A pass over JSON schemas before llguidance compiles them: what it makes strict, what it drops, what it refuses.

* Objects are closed where they do not say otherwise. Parts that apply to one object together (a schema and its
  ``anyOf``, ``oneOf`` or ``allOf``) are closed together, over all their names.
* ``oneOf`` is taken as ``anyOf``: a value that fits several options is not excluded.
* ``$ref`` reaches ``#/$defs/x`` and ``#/definitions/x``. A schema that only an endless value would satisfy is refused.
* A ``pattern`` holds for the whole string; with an anchor at one end only it is open at the other.
* Known formats become expressions (`formats`), others are dropped, and so are keywords that are no part of JSON Schema.
* What a small model could loop on is capped: whitespace between elements at ``MAX_SPACES`` characters; integers without
  bounds at those that every JSON reader keeps exactly (RFC 8259, section 6), other numbers at these too and at nine
  decimals, without an exponent; values of any kind at ``ANY_DEPTH`` levels of arrays and objects.

Keys come in the order of the schema.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn
from urllib.parse import unquote

from bakehouse.engine.errors import BadRequest
from bakehouse.engine.grammar import pattern, regex
from bakehouse.engine.grammar.finite import check_finite
from bakehouse.engine.grammar.formats import FORMATS
from bakehouse.engine.grammar.numbers import BOUNDS, bound_numbers

Schema = dict[str, Any]

MAX_SPACES = 20
MAX_DEPTH = 64
ANY_DEPTH = 16

_ANY = {"$ref": f"#/$defs/any{ANY_DEPTH}"}

#: Options of llguidance's compiler, at the root of what is handed to it.
OPTIONS = {"whitespace_pattern": rf"[\x20\x0A\x0D\x09]{{1,{MAX_SPACES}}}", "coerce_one_of": True}

_OBJECT_WORDS = ("properties", "required", "additionalProperties", "minProperties", "maxProperties")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_COMBINED = ("anyOf", "oneOf", "allOf")
_TYPES = ("string", "integer", "number", "boolean", "null", "array", "object")
_REFUSED = (
    *("not", "if", "then", "else", "dependentRequired", "dependentSchemas", "dependencies", "propertyNames"),
    *("patternProperties", "uniqueItems", "contains", "minContains", "maxContains", "additionalItems"),
    *("unevaluatedProperties", "unevaluatedItems", "$dynamicRef", "$recursiveRef"),
)


def prepare(source: str, field: str = "grammar.source") -> Schema:
    """The schema in *source*, ready for llguidance. Raises `BadRequest` naming the place of what is refused."""
    return prepare_value(_read(source, field), field)


def prepare_value(value: Any, field: str) -> Schema:
    """As `prepare`, for a schema that is read already."""
    prepass = _Prepass(value, field)
    try:
        schema = prepass.schema(value, "#")
    except RecursionError:  # of definitions, each of which needs the next
        raise BadRequest.at(field, "the schema is nested too deeply") from None
    if schema is False:
        raise BadRequest.at(field, "the schema false allows nothing")
    if schema is True or schema == {}:
        return any_json()
    root = dict(schema)
    if prepass.done:
        root["$defs"] = prepass.done
    check_finite(root, field)
    return {"x-guidance": OPTIONS, **root}


def _read(source: str, field: str) -> Any:
    pattern.check_text(source, field)
    try:
        return json.loads(source, parse_constant=_no_constant)
    except ValueError as error:
        raise BadRequest.at(field, f"the schema is not JSON: {error}") from None
    except RecursionError:
        raise BadRequest.at(field, "the schema is nested too deeply") from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


class _Prepass:
    """``done``: the definitions that were referred to, by the names they get in the result."""

    def __init__(self, root: Any, field: str) -> None:
        self.root = root
        self.field = field
        self.done: dict[str, Any] = {}
        self.names: dict[str, str] = {}
        self.inlining: list[str] = []

    def refuse(self, path: str, detail: str) -> NoReturn:
        raise BadRequest.at(self.field, f"{detail}, at {path}")

    def schema(self, value: Any, path: str, also: tuple[str, ...] = (), closed: bool = True) -> Schema | bool:
        """*value* made ready. *also*: names that other parts of the same object have; *closed*: if they close it."""
        if path.count("/") > 2 * MAX_DEPTH:
            self.refuse(path[:80], f"schemas may be nested {MAX_DEPTH} deep")
        if isinstance(value, bool):
            return value
        if not isinstance(value, dict):
            self.refuse(path, "a schema is an object, true or false")
        for word in _REFUSED:
            if value.get(word, False) is not False:
                self.refuse(path, f"the keyword {word} is not supported")
        value = self.with_reference_aside(value, path)
        if "$ref" in value:
            return self.reference(value["$ref"], path, also, closed)
        result = self.plain(value, path)
        self.combined(value, result, path, also, closed)
        if not also and not any(word in value for word in _COMBINED):
            self.cap_any(result)
        return result

    def with_reference_aside(self, value: Schema, path: str) -> Schema:
        """A reference beside other keywords holds together with them, as one more part of ``allOf``."""
        others = [word for word in value if word in (*_OBJECT_WORDS, *_COUNTS, *BOUNDS, *_COMBINED, *_OTHER)]
        if "$ref" not in value or not others:
            return value
        rest = {word: value[word] for word in others}
        return {**rest, "allOf": [{"$ref": value["$ref"]}, *self.options(value, "allOf", path)]}

    # References

    def reference(self, target: Any, path: str, also: tuple[str, ...], closed: bool) -> Schema | bool:
        found = self.resolve(target, path)
        if also or not closed:
            if target in self.inlining:
                self.refuse(path, f"{target} refers to itself beside other keywords of the same object")
            self.inlining.append(target)
            inlined = self.schema(found, path, also, closed)
            self.inlining.pop()
            return inlined
        if target not in self.names:
            self.names[target] = f"d{len(self.names)}"
            self.done[self.names[target]] = self.schema(found, str(target))
        return {"$ref": f"#/$defs/{self.names[target]}"}

    def resolve(self, target: Any, path: str) -> Any:
        parts = target.split("/") if isinstance(target, str) else []
        if len(parts) != 3 or parts[0] != "#" or parts[1] not in ("$defs", "definitions"):
            self.refuse(path, f"$ref reaches #/$defs/NAME and #/definitions/NAME only, not {target!r}")
        name = unquote(parts[2]).replace("~1", "/").replace("~0", "~")
        holder = self.root.get(parts[1]) if isinstance(self.root, dict) else None
        if not isinstance(holder, dict) or name not in holder:
            self.refuse(path, f"$ref {target!r} leads nowhere")
        return holder[name]

    # Keywords

    def plain(self, value: Schema, path: str) -> Schema:
        """The keywords that stand for themselves, in the order they came."""
        result: Schema = {}
        types = self.types(value, path)
        for word, given in value.items():
            here = f"{path}/{word}"
            if word == "type":
                result["type"] = types if isinstance(given, list) else given
            elif word in ("const", "enum"):
                result[word] = self.listed(given, here) if word == "enum" else given
            elif word in _COUNTS:
                result[word] = self.whole(given, here)
            elif word in BOUNDS:
                result[word] = self.number(given, here)
            elif word in ("items", "additionalProperties"):
                result[word] = self.schema(given, here)
            elif word == "prefixItems":
                result[word] = [
                    self.schema(item, f"{here}/{i}") for i, item in enumerate(self.options(value, word, path))
                ]
            elif word == "properties":
                result[word] = {n: self.schema(s, f"{here}/{n}") for n, s in self.mapping(given, here).items()}
            elif word == "required":
                result[word] = self.required(given, here)
        self.strings(value, result, path)
        if "enum" not in value and "const" not in value:
            bound_numbers(result, types)
        return result

    def cap_any(self, result: Schema) -> None:
        """Values of any kind get the limit of their depth."""
        if result.get("type") == "array":
            result.setdefault("items", True)
        for word in ("items", "additionalProperties"):
            if word in result and _is_any(result[word]):
                result[word] = self.any_value()
        properties = result.get("properties", {})
        properties.update({name: self.any_value() for name, inner in properties.items() if _is_any(inner)})

    def any_value(self) -> Schema:
        self.done.update(_any_levels())
        return dict(_ANY)

    def types(self, value: Schema, path: str) -> list[str]:
        given = value.get("type", [])
        types = given if isinstance(given, list) else [given]
        for one in types:
            if one not in _TYPES:
                self.refuse(f"{path}/type", f"there is no type {one!r}")
        if "type" in value and not types:
            self.refuse(f"{path}/type", "a list of types needs one")
        return types

    def listed(self, given: Any, path: str) -> list[Any]:
        if not isinstance(given, list) or not given:
            self.refuse(path, "enum is a list of one or more values")
        return given

    def whole(self, given: Any, path: str) -> int:
        if isinstance(given, bool) or not isinstance(given, int | float) or given < 0 or int(given) != given:
            self.refuse(path, f"must be a whole number of 0 or more, not {given!r}")
        return int(given)

    def number(self, given: Any, path: str) -> int | float:
        if isinstance(given, bool) or not isinstance(given, int | float):
            self.refuse(path, f"must be a number, not {given!r}")
        return given

    def mapping(self, given: Any, path: str) -> dict[str, Any]:
        if not isinstance(given, dict):
            self.refuse(path, "must be an object")
        return given

    def required(self, given: Any, path: str) -> list[str]:
        if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
            self.refuse(path, "must be a list of names")
        return list(dict.fromkeys(given))

    def options(self, value: Schema, word: str, path: str) -> list[Any]:
        given = value.get(word, [])
        if not isinstance(given, list) or (word in value and not given):
            self.refuse(f"{path}/{word}", "must be a list of one or more schemas")
        return given

    def strings(self, value: Schema, result: Schema, path: str) -> None:
        """``pattern`` and ``format`` in llguidance's dialect; both hold where both are given."""
        patterns = []
        if value.get("format") in FORMATS:
            patterns.append(f"^(?:{FORMATS[value['format']]})$")
        if "pattern" in value:
            given = value["pattern"]
            if not isinstance(given, str):
                self.refuse(f"{path}/pattern", "must be text")
            patterns.append(_searched(given, f"{self.field}: {path}/pattern"))
        if patterns:
            result["pattern"] = patterns[0]
        if len(patterns) > 1:
            result["allOf"] = [{"type": "string", "pattern": patterns[1]}]

    # Parts of one object

    def combined(self, value: Schema, result: Schema, path: str, also: tuple[str, ...], closed: bool) -> None:
        """Adds ``anyOf``, ``oneOf`` and ``allOf`` to *result*, and closes the object that they describe together."""
        own = tuple(value.get("properties", {}))
        together = [part for word in _COMBINED for part in self.options(value, word, path)]
        inner = tuple(dict.fromkeys(name for part in together for name in self.names_of(part, ())))
        is_object = _speaks_of_objects(value) and "object" in value.get("type", ["object"])
        closed = closed and not any(self.is_open(part, ()) for part in (value, *together))
        for word in _COMBINED:
            for index, part in enumerate(self.options(value, word, path)):
                names = (*also, *own) if is_object else also
                if word == "allOf":
                    names += tuple(n for other in together if other is not part for n in self.names_of(other, ()))
                done = self.schema(part, f"{path}/{word}/{index}", tuple(dict.fromkeys(names)), closed)
                result.setdefault("anyOf" if word == "oneOf" and "anyOf" not in value else word, []).append(done)
        if is_object and closed and "additionalProperties" not in result:
            _close(result, (*inner, *also))
        self.check_object(result, path)

    def names_of(self, value: Any, seen: tuple[str, ...]) -> Iterable[str]:
        """The names of properties that *value*, its parts and what they refer to speak of."""
        if not isinstance(value, dict):
            return
        if "$ref" in value and value["$ref"] not in seen:
            yield from self.names_of(self.resolve(value["$ref"], "#"), (*seen, value["$ref"]))
        yield from self.mapping(value.get("properties", {}), "#/properties")
        for word in _COMBINED:
            for part in self.options(value, word, "#"):
                yield from self.names_of(part, seen)

    def is_open(self, value: Any, seen: tuple[str, ...]) -> bool:
        """Whether *value* or a part of it allows other properties by its own words."""
        if not isinstance(value, dict):
            return False
        if value.get("additionalProperties", False) is not False:
            return True
        if "$ref" in value and value["$ref"] not in seen:
            return self.is_open(self.resolve(value["$ref"], "#"), (*seen, value["$ref"]))
        return any(self.is_open(part, seen) for word in _COMBINED for part in self.options(value, word, "#"))

    def check_object(self, result: Schema, path: str) -> None:
        properties, required = result.get("properties", {}), result.get("required", [])
        is_closed = result.get("additionalProperties", True) is False
        for name in required:
            if is_closed and name not in properties:
                self.refuse(path, f"{name!r} is required, but is no property and others are not allowed")
        if result.get("minProperties", 0) <= len(required):
            result.pop("minProperties", None)
        if is_closed and result.get("maxProperties", 0) >= len(properties):
            result.pop("maxProperties", None)
        if not is_closed and result.get("minProperties", 0) > len(required) + 1:
            self.refuse(path, "minProperties of 2 or more beyond the required ones is not supported: names may repeat")


_OTHER = ("type", "const", "enum", "items", "prefixItems", "pattern", "format")


def _speaks_of_objects(value: Mapping[str, Any]) -> bool:
    types = value.get("type", [])
    return "object" in types or any(word in value for word in _OBJECT_WORDS)


def _is_any(schema: Any) -> bool:
    return schema is True or schema == {}


def _close(result: Schema, others: Iterable[str]) -> None:
    properties = dict(result.get("properties", {}))
    for name in others:
        properties.setdefault(name, True)
    result["properties"] = properties
    result["additionalProperties"] = False


def _searched(source: str, field: str) -> str:
    """*source* for llguidance, which searches: anchored where the whole string must match."""
    parsed = regex.parse(source, field)
    one_end = parsed.at_start != parsed.at_end
    start = "" if one_end and parsed.at_end else "^"
    end = "" if one_end and parsed.at_start else "$"
    return f"{start}(?:{pattern.rust(parsed.node)}){end}"


def any_json() -> Schema:
    """What allows any JSON value, up to ``ANY_DEPTH`` levels deep."""
    return {"x-guidance": OPTIONS, **_ANY, "$defs": _any_levels()}


def _any_levels() -> dict[str, Schema]:
    number: Schema = {"type": "number"}
    bound_numbers(number, ["number"])
    plain = [{"type": "string"}, number, {"type": "boolean"}, {"type": "null"}]
    levels: dict[str, Schema] = {"any0": {"anyOf": plain}}
    for level in range(1, ANY_DEPTH + 1):
        inner = {"$ref": f"#/$defs/any{level - 1}"}
        array = {"type": "array", "items": inner}
        levels[f"any{level}"] = {"anyOf": [*plain, array, {"type": "object", "additionalProperties": inner}]}
    return levels
