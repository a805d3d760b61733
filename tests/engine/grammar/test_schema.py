"""What the pass over schemas makes of them: which texts are left, what is refused."""

from __future__ import annotations

import json
import random
import re
from decimal import Decimal
from typing import Any

import jsonschema_rs
import pytest

from bakehouse.engine.errors import BadRequest
from bakehouse.engine.grammar import schema
from tests.engine.grammar.texts import fits, fitting, matcher

A = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def texts_of(value: Any, texts: list[str]) -> set[str]:
    return fitting(matcher("json_schema", json.dumps(value)), texts)


@pytest.mark.parametrize(
    ("value", "yes", "no"),
    [
        # Objects
        (A, ['{"a": 1}', '{"a":1}', '{ "a" : 1 }'], ["{}", '{"a": 1, "b": 2}', '{"a": 1.5}', '{"a":1}x']),
        ({"type": "object"}, ["{}"], ['{"a": 1}']),
        ({"type": "object", "additionalProperties": True}, ["{}", '{"x": [1]}'], ["[]"]),
        (
            {"properties": {"a": {"const": 1}}, "additionalProperties": {"type": "null"}, "type": "object"},
            ['{"a": 1, "b": null}', '{"b": null}'],
            ['{"b": 1}', '{"a": null}'],
        ),
        (
            {"type": "object", "properties": {"b": {"const": 1}, "a": {"const": 2}}},
            ['{"b": 1, "a": 2}', '{"a": 2}', '{"b": 1}', "{}"],
            ['{"a": 2, "b": 1}', '{,"a": 2}', '{"b": 1,}'],
        ),
        ({"type": "object", "properties": {"a": True}, "minProperties": 1}, ['{"a": [{}]}'], ["{}"]),
        (
            {"type": "object", "additionalProperties": {"const": 1}, "maxProperties": 1},
            ["{}", '{"x":1}'],
            ['{"x":1,"y":1}'],
        ),
        # Types
        ({"type": ["string", "null"]}, ['"x"', "null"], ["1"]),
        ({"type": "boolean"}, ["true", "false"], ["null"]),
        ({"enum": [1, "a", None, {"b": [1]}]}, ["1", '"a"', "null", '{"b": [1]}'], ['"b"', "2"]),
        ({"const": "é"}, ['"é"'], ['"e"']),
        (True, ["1", "[]", '{"a": {}}', "null"], ["", "x"]),
        ({}, ["1", "[[]]"], ["]"]),
        ({"title": "x", "description": "y", "x-own": 3, "examples": [1]}, ['"x"'], []),
        # Numbers
        ({"type": "integer", "minimum": 3, "exclusiveMaximum": 10}, ["3", "9"], ["2", "10", "3.0", "03"]),
        ({"type": "integer", "multipleOf": 7}, ["14", "-7", "0"], ["15"]),
        ({"type": "integer"}, ["9007199254740991", "-9007199254740991"], ["9007199254740992", "1e3"]),
        ({"type": "integer", "minimum": 2**60}, [str(2**60), str(2**60 + 2**50)], ["5"]),
        ({"type": "number", "minimum": -1.5, "maximum": 2}, ["-1.5", "0", "1.999999999", "2"], ["-1.6", "2.1"]),
        ({"type": "number"}, ["0.123456789", "-12", "1.0"], ["0.1234567891", ".5", "1.", "10" * 10]),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1e-12}, ["0.000000000001"], ["0", "1"]),
        ({"type": "number", "exclusiveMinimum": 7, "maximum": 7.5}, ["7.1", "7.5"], ["7", "7.0"]),
        # Strings
        ({"type": "string", "minLength": 2, "maxLength": 3}, ['"ab"', '"äöü"', r'"\n\""'], ['"a"', '"abcd"']),
        ({"type": "string", "pattern": "^[a-z]+$"}, ['"abc"'], ['"ab1"', '""']),
        ({"type": "string", "pattern": "[a-z]+"}, ['"abc"'], ['"1abc"']),
        ({"type": "string", "pattern": "^ab"}, ['"abc"', '"ab"'], ['"xab"']),
        ({"type": "string", "pattern": "ab$"}, ['"xab"', '"ab"'], ['"abx"']),
        ({"type": "string", "pattern": r"^\"\\$"}, [r'"\"\\"'], ['"x"']),
        ({"type": "string", "pattern": "[a-z]+", "maxLength": 2}, ['"ab"'], ['"abc"']),
        ({"type": "string", "format": "made-up"}, ['"anything"'], ["1"]),
        ({"type": "string", "format": "ipv4"}, ['"10.0.0.255"'], ['"10.0.0.256"', '"010.0.0.1"']),
        ({"type": "string", "format": "ipv4", "pattern": r"^10\..*$"}, ['"10.0.0.1"'], ['"11.0.0.1"']),
        # Arrays
        ({"type": "array", "items": {"const": 1}, "minItems": 1, "maxItems": 2}, ["[1]", "[1, 1]"], ["[]", "[1,1,1]"]),
        (
            {"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "items": False, "minItems": 2},
            ["[1, 2]"],
            ["[1]", "[1, 2, 3]"],
        ),
        ({"type": "array"}, ["[]", '[1, "a", []]'], ["{}"]),
        # Alternatives and references
        ({"oneOf": [{"const": 1}, {"const": 2}]}, ["1", "2"], ["3"]),
        ({"oneOf": [{"type": "integer"}, {"const": 1}]}, ["1", "2"], []),
        ({"allOf": [A]}, ['{"a": 1}'], ["{}"]),
        ({"$ref": "#/$defs/x", "$defs": {"x": A}}, ['{"a": 1}'], ["{}"]),
        ({"$ref": "#/definitions/a~1b%20c", "definitions": {"a/b c": {"const": 1}}}, ["1"], ["2"]),
        (
            {"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}}}},
            ["{}", '{"n": {"n": {}}}'],
            ['{"n": 1}'],
        ),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"type": "integer"}}, "maximum": 3}, ["3"], ["4"]),
        # One object, described in parts
        (
            A
            | {
                "anyOf": [
                    {"properties": {"b": {"const": 1}}, "required": ["b"]},
                    {"required": ["c"], "properties": {"c": {}}},
                ]
            },
            ['{"a": 1, "b": 1}', '{"a": 1, "c": []}'],
            ['{"a": 1}', '{"a": 1, "b": 1, "c": 2}', '{"a": 1, "d": 1}'],
        ),
        (
            {"type": "object", "properties": {"a": {}, "b": {}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
            ['{"a": 1}', '{"b": 1}', '{"a": 1, "b": 1}'],
            ["{}", '{"c": 1}'],
        ),
        (
            {"allOf": [A, {"properties": {"b": {"const": 2}}, "required": ["b"]}]},
            ['{"a": 1, "b": 2}'],
            ['{"a": 1}', '{"a": 1, "b": 2, "c": 3}'],
        ),
        (
            {"$ref": "#/$defs/x", "properties": {"b": {"const": 2}}, "$defs": {"x": A}},
            ['{"b": 2, "a": 1}', '{"a": 1}'],
            ['{"b": 2}', '{"a": 1, "c": 1}'],
        ),
        (
            A | {"anyOf": [{"additionalProperties": True}, {"required": ["a"]}]},
            ['{"a": 1, "z": 2}', '{"a": 1}'],
            ["{}"],
        ),
        ({"anyOf": [A, {"type": "null"}]}, ['{"a": 1}', "null"], ['{"a": 1, "b": 1}']),
    ],
)
def test_which_texts_fit(value: Any, yes: list[str], no: list[str]) -> None:
    assert texts_of(value, [*yes, *no]) == set(yes)
    checker = jsonschema_rs.validator_for(value)
    is_one_of = isinstance(value, dict) and "oneOf" in value
    assert is_one_of or all(checker.is_valid(json.loads(text)) for text in yes)


@pytest.mark.parametrize(
    ("spaces", "fit"), [("", True), (" ", True), (" \t\r\n", True), (" " * schema.MAX_SPACES, True), (" " * 21, False)]
)
def test_whitespace_between_elements_is_capped_and_none_stands_around(spaces: str, fit: bool) -> None:
    text = f'{{{spaces}"a"{spaces}:{spaces}1{spaces}}}'
    assert texts_of(A, [text]) == ({text} if fit else set())
    assert not texts_of(A, [' {"a": 1}', '{"a": 1} '])


def test_any_json_has_a_depth() -> None:
    deepest, deeper = ("[" * depth + "]" * depth for depth in (schema.ANY_DEPTH, schema.ANY_DEPTH + 1))
    for start in (matcher("json"), matcher("json_schema", "{}")):
        assert fitting(start, [deepest, deeper, '{"a": 0.5}', '"x"', " 1", "01"]) == {deepest, '{"a": 0.5}', '"x"'}
    nested = matcher("json_schema", '{"type": "array"}')
    assert fitting(nested, [f"[{deepest}]", f"[{deeper}]"]) == {f"[{deepest}]"}


@pytest.mark.parametrize("name", schema.FORMATS)
def test_formats_are_those_of_a_strict_validator(name: str) -> None:
    good = {
        "date": ["2024-02-29", "2000-02-29", "1999-12-31"],
        "time": ["00:00:00Z", "23:59:59.123+01:00"],
        "date-time": ["2024-02-29T12:00:00Z", "2023-01-31T00:00:00.5-11:30"],
        "email": ["a.b+c@example.co.uk"],
        "uuid": ["123e4567-e89b-12d3-a456-426614174000"],
        "ipv4": ["0.0.0.0", "192.168.1.255"],
        "ipv6": ["::1", "fe80::1:2", "1:2:3:4:5:6:7:8"],
        "hostname": ["localhost", "a-b.example.org"],
        "duration": ["P1W", "P1Y2M3D", "PT5M", "P1DT12H30M"],
    }[name]
    bad = {
        "date": ["2023-02-29", "1900-02-29", "2024-13-01", "2024-04-31", "24-01-01"],
        "time": ["24:00:00Z", "12:00:00", "12:60:00Z"],
        "date-time": ["2024-02-30T12:00:00Z", "2024-02-29 12:00:00Z", "2024-02-29"],
        "email": ["@example.com", "a@", "a@@b.c", "a b@c.de"],
        "uuid": ["123e4567e89b12d3a456426614174000", "g23e4567-e89b-12d3-a456-426614174000"],
        "ipv4": ["256.1.1.1", "1.1.1", "01.1.1.1"],
        "ipv6": ["1:2", ":::", "1::2::3", "12345::"],
        "hostname": ["-a.com", "a-.com", "a..b", ""],
        "duration": ["P", "1D", "PT", "P1S"],
    }[name]
    value = {"type": "string", "format": name}
    assert texts_of(value, [json.dumps(text) for text in good + bad]) == {json.dumps(text) for text in good}
    checker = jsonschema_rs.validator_for(value, validate_formats=True)
    assert [text for text in good + bad if checker.is_valid(text)] == good


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        (False, "the schema false allows nothing"),
        (3, "a schema is an object, true or false, at #"),
        ({"properties": {"a": 3}}, "a schema is an object, true or false, at #/properties/a"),
        ({"properties": []}, "must be an object, at #/properties"),
        ({"type": "float"}, "there is no type 'float', at #/type"),
        ({"type": []}, "a list of types needs one, at #/type"),
        ({"enum": []}, "enum is a list of one or more values, at #/enum"),
        ({"anyOf": []}, "must be a list of one or more schemas, at #/anyOf"),
        ({"required": "a"}, "must be a list of names, at #/required"),
        ({"minLength": -1}, "must be a whole number of 0 or more, not -1, at #/minLength"),
        ({"minimum": "1"}, "must be a number, not '1', at #/minimum"),
        ({"type": "string", "pattern": 3}, "must be text, at #/pattern"),
        ({"items": {"pattern": "a(?=b)"}}, "#/items/pattern: lookaround is not supported, at position 1"),
        ({"not": {}}, "the keyword not is not supported, at #"),
        ({"items": {"uniqueItems": True}}, "the keyword uniqueItems is not supported, at #/items"),
        ({"patternProperties": {"a": {}}}, "the keyword patternProperties is not supported"),
        ({"type": "object", "required": ["a"]}, "'a' is required, but is no property and others are not allowed"),
        ({"additionalProperties": True, "minProperties": 2}, "minProperties of 2 or more beyond the required ones"),
        ({"$ref": "https://example.com/x"}, "$ref reaches #/$defs/NAME and #/definitions/NAME only"),
        ({"$ref": "#/properties/a"}, "$ref reaches #/$defs/NAME and #/definitions/NAME only"),
        ({"$ref": "#/$defs/x"}, "$ref '#/$defs/x' leads nowhere"),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"$ref": "#/$defs/x"}}}, "refers to itself without an end"),
        (
            {"$ref": "#/$defs/x", "$defs": {"x": A | {"properties": {"a": {"$ref": "#/$defs/x"}}}}},
            "refers to itself without an end",
        ),
        (
            {"$ref": "#/$defs/x", "$defs": {"x": {"type": "array", "items": {"$ref": "#/$defs/x"}, "minItems": 1}}},
            "refers to itself without an end",
        ),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "grammar: "),
    ],
)
def test_what_cannot_be_held_is_refused_with_its_place(value: Any, detail: str) -> None:
    with pytest.raises(BadRequest, match=re.escape(detail)):
        matcher("json_schema", json.dumps(value))


@pytest.mark.parametrize(
    ("source", "detail"),
    [
        ("{", "the schema is not JSON"),
        ("", "the schema is not JSON"),
        ('{"const": NaN}', "NaN is no JSON number"),
        ('{"items":' * 30_000 + "{}" + "}" * 30_000, "nested"),
        ('{"items":' * 200 + "{}" + "}" * 200, "schemas may be nested 64 deep"),
        (" " * (1 << 20) + "{}", "it may have 1048576 characters"),
    ],
)
def test_what_is_no_schema_is_refused(source: str, detail: str) -> None:
    with pytest.raises(BadRequest, match=detail):
        matcher("json_schema", source)


@pytest.mark.parametrize("seed", range(60))
def test_no_number_outside_of_its_bounds_fits_and_none_well_inside_is_missed(seed: int) -> None:
    """In exact decimals. Near an edge llguidance may ask for more digits than a number needs: there only the first."""
    rng = random.Random(seed)
    places = rng.choice([0, 0, 1, 2, 3])
    low = Decimal(rng.randrange(-(10**places) * 10, 10**places * 10)).scaleb(-places)
    high = low + Decimal(rng.randrange(1, 4 * 10**places)).scaleb(-places)
    bounds = {rng.choice(["minimum", "exclusiveMinimum"]): low, rng.choice(["maximum", "exclusiveMaximum"]): high}
    start = matcher(
        "json_schema", json.dumps({"type": "number"} | {word: float(edge) for word, edge in bounds.items()})
    )
    middle = (low + high) / 2
    for edge in (low, high, middle, Decimal(0), Decimal(int(low)), Decimal(int(high))):
        for step in ("0", "1", "-1", "0.1", "-0.1", "0.001", "-0.001", "1e-9", "-1e-9"):
            value = edge + Decimal(step)
            for text in {f"{value.normalize():f}", f"{value:f}", f"-{value:f}".replace("--", "")}:
                assert not fits(start, text) or within(Decimal(text), bounds), (bounds, text)
    assert fits(start, f"{middle.normalize():f}"), (bounds, middle)


def within(value: Decimal, bounds: dict[str, Decimal]) -> bool:
    holds = {
        "minimum": lambda edge: value >= edge,
        "exclusiveMinimum": lambda edge: value > edge,
        "maximum": lambda edge: value <= edge,
        "exclusiveMaximum": lambda edge: value < edge,
    }
    return all(holds[word](edge) for word, edge in bounds.items())


@pytest.mark.timeout(20)
def test_a_large_schema_is_compiled_in_time() -> None:
    inner = {"type": "string", "maxLength": 5000, "pattern": "^(?:[a-z]{1,40}-){1,40}$"}
    value = {"type": "object", "properties": {f"name{n}": inner for n in range(1000)}}
    assert texts_of(value, ['{"name7": "ab-cd-"}', '{"name7": "ab"}']) == {'{"name7": "ab-cd-"}'}


def test_a_schema_whose_parts_multiply_is_refused() -> None:
    parts = [{"anyOf": [{"properties": {f"{k}-{n}": {"type": "integer"}}} for n in range(8)]} for k in range(6)]
    with pytest.raises(BadRequest, match="grammar: schema too large"):
        matcher("json_schema", json.dumps({"allOf": parts}))


def test_definitions_that_need_each_other_for_long() -> None:
    chain = {f"d{n}": {"$ref": f"#/$defs/d{n + 1}"} for n in range(5000)}
    with pytest.raises(BadRequest, match="nested too deeply"):
        matcher("json_schema", json.dumps({"$defs": {**chain, "d5000": {"type": "null"}}, "$ref": "#/$defs/d0"}))


def test_a_number_that_is_too_large_to_be_read() -> None:
    with pytest.raises(BadRequest, match=r"grammar\.source"):
        matcher("json_schema", json.dumps({"type": "integer", "maximum": 10**300}))
