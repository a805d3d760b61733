"""`Pie.toml`: what it says, and what is refused by name."""

from __future__ import annotations

import pytest

from bakehouse.inferlets.errors import BadProgram
from bakehouse.inferlets.manifest import MAX_SIZE, Manifest, Parameter
from bakehouse.inferlets.versions import Requirement, Version

WHOLE = """
[package]
name = "beam-search"
version = "1.10.2"
description = "Several beams"
authors = ["Ada <ada@example.org>"]
repository = "https://example.org/beam-search"
readme = "README.md"
keywords = ["search"]

[runtime]
core = "^0.2.0"
inferlet = "1"

[parameters]
prompt = { type = "string", description = "What to continue" }
beams = { type = "int", optional = true }
words = { type = "list", optional = true }

[dependencies]
judge = "0.1.0"
"""

LEAST = '[package]\nname = "a"\nversion = "1.0.0"\n'


def test_everything_that_it_may_say() -> None:
    found = Manifest.parse(WHOLE)
    assert found.ref == "beam-search@1.10.2"
    assert (found.description, found.authors) == ("Several beams", ("Ada <ada@example.org>",))
    assert (found.repository, found.readme) == ("https://example.org/beam-search", "README.md")
    assert found.keywords == ("search",)
    assert found.runtime == {"core": "^0.2.0", "inferlet": "1"}
    assert found.parameters == (
        Parameter("prompt", "string", description="What to continue"),
        Parameter("beams", "int", optional=True),
        Parameter("words", "list", optional=True),
    )
    assert found.dependencies == {"judge": "0.1.0"}


def test_parameters_as_a_schema() -> None:
    assert Manifest.parse(WHOLE).input_schema() == {
        "type": "object",
        "properties": {
            "prompt": {"type": "string", "description": "What to continue"},
            "beams": {"type": "integer"},
            "words": {"type": "array"},
        },
        "required": ["prompt"],
        "additionalProperties": False,
    }
    assert Manifest.parse(LEAST).input_schema() == {"type": "object"}


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "package"),
        ("no toml", ""),
        ('[package]\nversion = "1.0.0"', "package.name"),
        ('[package]\nname = "a"', "package.version"),
        ('[package]\nname = "a b"\nversion = "1.0.0"', "package.name"),
        ('[package]\nname = "-a"\nversion = "1.0.0"', "package.name"),
        ('[package]\nname = "ä"\nversion = "1.0.0"', "package.name"),
        ('[package]\nname = ""\nversion = "1.0.0"', "package.name"),
        (f'[package]\nname = "{"a" * 129}"\nversion = "1.0.0"', "package.name"),
        ('[package]\nname = "a"\nversion = "1.0"', "package.version"),
        ('[package]\nname = "a"\nversion = "01.0.0"', "package.version"),
        ('[package]\nname = "a"\nversion = "1.0.0-rc1"', "package.version"),
        ('[package]\nname = "a"\nversion = 1', "package.version"),
        (LEAST + "license = 'MIT'", "package.license"),
        (LEAST + "authors = 'me'", "package.authors"),
        (LEAST + "[build]\nx = 1", "build"),
        (LEAST + "[runtime]\nweb = '*'", "runtime.web"),
        (LEAST + "[runtime]\ncore = '^0.3'", "runtime.core"),
        (LEAST + "[runtime]\ncore = 'new'", "runtime.core"),
        (LEAST + "[parameters]\nx = 'string'", "parameters.x"),
        (LEAST + "[parameters]\nx = { type = 'text' }", "parameters.x.type"),
        (LEAST + "[parameters]\nx = { type = 'int', default = 1 }", "parameters.x.default"),
        (LEAST + "[parameters]\n'a b' = { type = 'int' }", "parameters.a b"),
        (LEAST + "[dependencies]\nb = '^1.0.0'", "dependencies.b"),
        (LEAST + "[dependencies]\n'b/c' = '1.0.0'", "dependencies.b/c"),
        (LEAST + "#" * MAX_SIZE, ""),
    ],
)
def test_what_is_refused_names_its_field(text: str, field: str) -> None:
    with pytest.raises(BadProgram) as caught:
        Manifest.parse(text)
    assert caught.value.field == field
    assert field in caught.value.detail


def test_versions_are_numbers() -> None:
    texts = ["0.9.0", "0.10.0", "1.0.0", "1.0.2", "1.0.10", "10.0.0"]
    assert sorted(map(Version.parse, reversed(texts))) == [Version.parse(text) for text in texts]
    assert [str(Version.parse(text)) for text in texts] == texts


@pytest.mark.parametrize(
    ("requirement", "yes", "no"),
    [
        ("*", "0.0.0 9.9.9", ""),
        ("^1.2.3", "1.2.3 1.9.0", "1.2.2 2.0.0"),
        ("1.2", "1.2.0 1.9.9", "1.1.9 2.0.0"),
        ("^0.2.3", "0.2.3 0.2.9", "0.2.2 0.3.0"),
        ("^0.0.3", "0.0.3", "0.0.2 0.0.4"),
        ("^0.0", "0.0.0 0.0.9", "0.1.0"),
        ("^0", "0.0.0 0.9.0", "1.0.0"),
        ("~1.2.3", "1.2.3 1.2.9", "1.3.0"),
        ("~1", "1.0.0 1.9.0", "2.0.0"),
        ("=1.2.3", "1.2.3", "1.2.2 1.2.4"),
        ("=1", "1.0.0 1.9.9", "0.9.9 2.0.0"),
        (">=1.2, <2", "1.2.0 1.9.9", "1.1.9 2.0.0"),
        (">1.2", "1.3.0 2.0.0", "1.2.9"),
        ("<=1.2", "0.0.0 1.2.9", "1.3.0"),
    ],
)
def test_requirements(requirement: str, yes: str, no: str) -> None:
    wanted = Requirement.parse(requirement)
    assert all(Version.parse(text) in wanted for text in yes.split())
    assert not any(Version.parse(text) in wanted for text in no.split())


@pytest.mark.parametrize("text", ["", "1.2.3.4", "^", "1.x", ">=1 <2", "1.0.0-rc1", "^^1"])
def test_what_is_no_requirement(text: str) -> None:
    with pytest.raises(ValueError, match="requires no version"):
        Requirement.parse(text)
