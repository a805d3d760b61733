"""``inf.yml``: what an app says about itself, checked key by key.

A value that cannot be honoured raises ``Invalid`` with its path (``/inf.yml/resources/gpu/count``); a key that nobody
knows, or that has no effect here, becomes a warning, so that apps written for other servers still deploy.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from bakehouse.core.app import Limits, Manifest, Requirement, Resources
from bakehouse.core.errors import Invalid
from bakehouse.core.refs import RESERVED_NAMES, check_name

FILENAME = "inf.yml"
MAX_SIZE = 64 * 1024
"""Bytes; nothing but a mistake or an attack is longer."""

CATEGORIES = ("image", "video", "audio", "text", "chat", "3d", "other", "flow", "decision")

# Keys that other servers honour. Saying so is better than "unknown key", which reads like a typing error.
_WITHOUT_EFFECT = {
    "functions": "functions are read from the code",
    "integrations": "this server offers no integrations",
    "credentials": "this server offers no credentials",
    "sandbox": "isolation is the operator's choice",
    "images": "pictures of an app are not kept",
}
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_KERNEL = re.compile(r"python(-3\.\d{1,2})?", re.ASCII)
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", re.ASCII)
_FUNCTION = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)

Count = Annotated[int, Field(strict=True, ge=0)]
Positive = Annotated[int, Field(strict=True, ge=1)]
Seconds = Annotated[float, Field(gt=0, le=30 * 24 * 3600, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Part(BaseModel):
    # Extra keys are kept, so that each can be named in a warning.
    model_config = ConfigDict(extra="allow", strict=True)


class _Gpu(_Part):
    count: Count | None = None
    vram: Amount = 0
    type: Literal["any", "nvidia", "amd", "apple", "intel", "none"] | None = None


class _Resources(_Part):
    gpu: _Gpu = _Gpu()
    ram: Amount = 0


class _Secret(_Part):
    key: str
    description: str = ""
    optional: bool = False

    @field_validator("key")
    @classmethod
    def _is_variable(cls, value: str) -> str:
        return _variable(value)


class _Limits(_Part):
    memory: Amount | None = None
    processes: Positive | None = None
    file_size: Amount | None = None
    cpu_time: Positive | None = None


class _InfYml(_Part):
    name: str
    namespace: str | None = None
    description: str = ""
    category: Literal["image", "video", "audio", "text", "chat", "3d", "other", "flow", "decision"] = "other"
    kernel: str = "python"
    version: str | None = None
    default_function: str | None = None
    resources: _Resources = _Resources()
    env: dict[str, str | int | float | bool] = Field(default_factory=dict)
    secrets: list[_Secret] = Field(default_factory=list)
    metadata: dict[str, Any] = Field(default_factory=dict)
    concurrency: Annotated[int, Field(strict=True, ge=1, le=1024)] = 1
    retries: Annotated[int, Field(strict=True, ge=0, le=100)] = 1
    timeout: Seconds | None = None
    idle_timeout: Seconds | None = None
    shared: bool = False
    visibility: Literal["private", "public"] = "private"
    limits: _Limits = _Limits()

    @field_validator("name", "namespace")
    @classmethod
    def _is_name(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            check_name(value, "name")
        except Invalid as wrong:
            raise ValueError(wrong.fields[0]["message"]) from wrong
        if value in RESERVED_NAMES:
            raise ValueError(f"{value!r} is a fixed word of the API; choose another name")
        return value

    @field_validator("kernel")
    @classmethod
    def _is_python(cls, value: str) -> str:
        if not _KERNEL.fullmatch(value):
            raise ValueError(f"{value!r} is not a kernel of this server; write python or python-3.X")
        return value

    @field_validator("version")
    @classmethod
    def _is_label(cls, value: str | None) -> str | None:
        if value is not None and not _LABEL.fullmatch(value):
            raise ValueError(f"{value!r} cannot stand after '@'; write a version such as \"1.2.0\"")
        return value

    @field_validator("default_function")
    @classmethod
    def _is_function(cls, value: str | None) -> str | None:
        if value is not None and not _FUNCTION.fullmatch(value):
            raise ValueError(f"{value!r} is not the name of a function")
        return value

    @field_validator("env")
    @classmethod
    def _are_variables(cls, value: dict[str, str | int | float | bool]) -> dict[str, str | int | float | bool]:
        for key in value:
            _variable(key)
        return value


def _variable(name: str) -> str:
    if not _ENV_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of an environment variable")
    if name.upper().startswith("BAKEHOUSE_"):
        raise ValueError(f"{name!r}: names that begin with BAKEHOUSE_ belong to the server")
    return name


class _Loader(yaml.SafeLoader):
    """YAML without its traps: no aliases (they multiply a small file) and no key twice (the last would win)."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.constructor.ConstructorError(problem="aliases (*name) are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen:
                raise yaml.constructor.ConstructorError(problem=f"the key {key!r} stands twice")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def parse_manifest(data: bytes) -> tuple[Manifest, list[str]]:
    """The manifest in the bytes of an ``inf.yml`` and the warnings about it.

    Raises Invalid, with a field for each wrong value.
    """
    raw = _load(data)
    try:
        model = _InfYml.model_validate(raw)
    except ValidationError as wrong:
        fields = [{"path": _pointer(error["loc"]), "message": _message(error)} for error in wrong.errors()]
        first = fields[0]
        raise Invalid(f"{first['path']}: {first['message']}", code="invalid_manifest", fields=fields) from None
    warnings = _unknown(model, f"/{FILENAME}")
    return _manifest(model, warnings), warnings


def _load(data: bytes) -> dict[str, Any]:
    if len(data) > MAX_SIZE:
        raise _bad(f"is {len(data)} bytes long; the limit is {MAX_SIZE}")
    try:
        raw = yaml.load(data, Loader=_Loader)
    except yaml.YAMLError as wrong:
        raise _bad(f"is not YAML that can be read: {' '.join(str(wrong).split())}") from None
    except (RecursionError, ValueError) as wrong:
        raise _bad(f"is not YAML that can be read: {type(wrong).__name__}") from None
    if not isinstance(raw, dict) or not all(isinstance(key, str) for key in raw):
        raise _bad("must be a mapping of names to values, beginning with `name: ...`")
    # `version: 1.10` is a float in YAML and would lose its zero; the author must quote it.
    if isinstance(raw.get("version"), int | float):
        raise _bad('must be text: write version: "1.10" with quotes', "/version")
    # An empty value means "not given", as people write `resources:` and nothing below.
    return {key: value for key, value in raw.items() if value is not None}


def _bad(message: str, path: str = "") -> Invalid:
    where = f"/{FILENAME}{path}"
    return Invalid(f"{where} {message}", code="invalid_manifest", fields=[{"path": where, "message": message}])


def _pointer(location: tuple[int | str, ...]) -> str:
    # Union members appear in pydantic's locations as type names; they are no part of the file.
    parts = [str(part) for part in location if part not in ("str", "int", "float", "bool")]
    return "/".join(["", FILENAME, *(part.replace("~", "~0").replace("/", "~1") for part in parts)])


def _message(error: Any) -> str:
    text = str(error["msg"]).removeprefix("Value error, ")
    return text if error["type"] in ("missing", "value_error") else f"{text} (got {error['input']!r:.80})"


def _unknown(part: BaseModel, path: str) -> list[str]:
    warnings = []
    for key in part.model_extra or {}:
        reason = _WITHOUT_EFFECT.get(key) if path == f"/{FILENAME}" else None
        warnings.append(f"{path}/{key} has no effect: {reason}" if reason else f"{path}/{key} is not a known key")
    for name in type(part).model_fields:
        value = getattr(part, name)
        children = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
        for index, child in children:
            if isinstance(child, BaseModel):
                warnings += _unknown(child, f"{path}/{name}" + ("" if index is None else f"/{index}"))
    return warnings


def _manifest(model: _InfYml, warnings: list[str]) -> Manifest:
    return Manifest(
        name=model.name,
        namespace=model.namespace,
        description=model.description,
        category=model.category,
        kernel=model.kernel,
        label=model.version,
        default_function=model.default_function,
        resources=_resources(model.resources, warnings),
        env={key: _text(value) for key, value in model.env.items()},
        secrets=tuple(Requirement(s.key, s.description, s.optional) for s in model.secrets),
        concurrency=model.concurrency,
        retries=model.retries,
        timeout=model.timeout,
        idle_timeout=model.idle_timeout,
        shared=model.shared,
        visibility=model.visibility,
        limits=_limits(model.limits),
        metadata=model.metadata,
    )


def _text(value: str | int | float | bool) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _limits(limits: _Limits) -> Limits:
    memory = None if limits.memory is None else size(limits.memory)
    file_size = None if limits.file_size is None else size(limits.file_size)
    return Limits(memory, limits.processes, file_size, limits.cpu_time)


def _resources(resources: _Resources, warnings: list[str]) -> Resources:
    gpu = resources.gpu
    kind = gpu.type or ("any" if gpu.count else "none")
    if kind == "none":
        if gpu.count:
            warnings.append(f"/{FILENAME}/resources/gpu/count has no effect: the type is none")
        return Resources(ram=size(resources.ram))
    count = 1 if gpu.count is None else gpu.count
    return Resources(count, size(gpu.vram) if count else 0, kind if count else "none", size(resources.ram))


def size(number: float) -> int:
    """Bytes that *number* means: GB below 1,000, MB up to 1e9, bytes above. Decimal units, as memory is sold."""
    if number < 1000:
        return int(number * 10**9)
    return int(number * 10**6) if number <= 10**9 else int(number)
