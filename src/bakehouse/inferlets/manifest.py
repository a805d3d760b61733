"""``Pie.toml``: what a program says about itself, checked field by field."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bakehouse.inferlets.errors import BadProgram
from bakehouse.inferlets.versions import Requirement, Version

FILENAME = "Pie.toml"
#: Bytes of a manifest, characters of a name; nothing but a mistake or an attack is longer.
MAX_SIZE, MAX_NAME = 64 * 1024, 128
#: What some editors put in front of a text.
BOM = "\ufeff"

#: The interfaces of this host, by the names that ``[runtime]`` uses.
INTERFACES = {
    "core": Version(0, 2, 0),
    "instruct": Version(0, 2, 0),
    "mcp": Version(0, 2, 0),
    "zo": Version(0, 2, 0),
    "inferlet": Version(1, 0, 0),
}

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*", re.ASCII)
_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*", re.ASCII)
#: What parameters may be, as JSON Schema calls it. ``list`` and ``object`` are of our own.
_JSON_TYPES = {
    "string": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "list": "array",
    "object": "object",
}
ParameterType = Literal["string", "int", "float", "bool", "list", "object"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One value that a program takes."""

    name: str
    type: ParameterType
    optional: bool = False
    description: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A program's name and version, and what it says beside them.

    ``runtime`` maps interfaces to what is required of their version. ``dependencies`` maps the programs that this one
    spawns to their exact version: they must be installed before it. Nothing is linked into a program.
    """

    name: str
    version: str
    description: str = ""
    authors: tuple[str, ...] = ()
    repository: str = ""
    readme: str = ""
    keywords: tuple[str, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    runtime: Mapping[str, str] = field(default_factory=dict)
    dependencies: Mapping[str, str] = field(default_factory=dict)

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.version}"

    @classmethod
    def parse(cls, text: str) -> Manifest:
        """Of a whole ``Pie.toml``. Raises `BadProgram`, whose ``field`` is such as ``package.version``."""
        if len(text.encode()) > MAX_SIZE:
            raise BadProgram(f"{FILENAME}: larger than {MAX_SIZE} bytes", field="")
        try:
            content = _File.model_validate(tomllib.loads(text.removeprefix(BOM)))
        except tomllib.TOMLDecodeError as error:
            raise BadProgram(f"{FILENAME}: no TOML: {error}", field="") from None
        except ValidationError as error:
            raise _refused(error) from None
        package = content.package
        return cls(
            name=_checked("package.name", check_name, package.name),
            version=_checked("package.version", _version, package.version),
            description=package.description,
            authors=tuple(package.authors),
            repository=package.repository,
            readme=package.readme,
            keywords=tuple(package.keywords),
            parameters=tuple(_parameter(name, said) for name, said in content.parameters.items()),
            runtime=_checked_table("runtime", content.runtime, _interface),
            dependencies=_checked_table("dependencies", content.dependencies, _dependency),
        )

    def input_schema(self) -> dict[str, Any]:
        """The parameters as JSON Schema of one object. Without parameters anything goes."""
        if not self.parameters:
            return {"type": "object"}
        properties = {
            each.name: {
                "type": _JSON_TYPES[each.type],
                **({"description": each.description} if each.description else {}),
            }
            for each in self.parameters
        }
        required = [each.name for each in self.parameters if not each.optional]
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def check_name(name: str) -> str:
    """*name*, where a program may have it. Raises ValueError."""
    if _NAME.fullmatch(name) is None or len(name) > MAX_NAME:
        raise ValueError(
            f"{name!r} is no name of a program; one has letters, digits, - and _, begins with a letter or a digit and "
            f"is at most {MAX_NAME} characters long"
        )
    return name


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Package(_Part):
    name: str
    version: str
    description: str = ""
    authors: list[str] = []
    repository: str = ""
    readme: str = ""
    keywords: list[str] = []


class _Parameter(_Part):
    type: ParameterType
    optional: bool = False
    description: str = ""


class _File(_Part):
    package: _Package
    runtime: dict[str, str] = {}
    parameters: dict[str, _Parameter] = Field(default={}, max_length=256)
    dependencies: dict[str, str] = Field(default={}, max_length=256)


def _parameter(name: str, said: _Parameter) -> Parameter:
    if _PARAMETER.fullmatch(name) is None:
        place = f"parameters.{name}"
        raise BadProgram(f"{FILENAME}: {place}: a parameter's name has letters, digits, - and _", field=place)
    return Parameter(name, said.type, said.optional, said.description)


def _interface(name: str, required: str) -> None:
    if name not in INTERFACES:
        raise ValueError(f"there is no such interface; there are: {', '.join(INTERFACES)}")
    if INTERFACES[name] not in Requirement.parse(required):
        raise ValueError(f"requires {required}, this host has {INTERFACES[name]}")


def _dependency(name: str, version: str) -> None:
    check_name(name)
    _version(version)


def _version(text: str) -> str:
    return str(Version.parse(text))


def _checked_table(place: str, table: dict[str, str], check: Callable[[str, str], None]) -> dict[str, str]:
    for name, said in table.items():
        _checked(f"{place}.{name}", partial(check, name), said)
    return table


def _checked(place: str, check: Callable[[str], T], value: str) -> T:
    try:
        return check(value)
    except ValueError as error:
        raise BadProgram(f"{FILENAME}: {place}: {error}", field=place) from None


def _refused(error: ValidationError) -> BadProgram:
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    text = {"extra_forbidden": "there is no such field", "missing": "must be given"}.get(first["type"], first["msg"])
    return BadProgram(f"{FILENAME}: {place}: {text}", field=place)
