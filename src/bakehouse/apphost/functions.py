"""Which functions an app offers, and how each is called. Found by type hints, once, when the app is loaded."""

from __future__ import annotations

import inspect
import typing
from dataclasses import dataclass, field
from typing import Any, Callable

from .loader import LoadError, derives, is_sdk_class

HOOKS = ("setup", "unload", "on_cancel")
DEFAULT = "run"
_DECORATION = "__inferencesh_function__"
_SOCKETS = ("socket", "sock")
_MISSING = inspect.Parameter.empty


@dataclass
class Function:
    """One callable of the app. ``kind`` is sync, async, generator or async_generator."""

    name: str
    kind: str
    input_name: str | None
    input_type: Any
    output_type: Any
    metadata_name: str | None
    metadata_type: Any
    description: str
    decoration: dict[str, Any] = field(default_factory=dict)
    file_input: bool = False
    file_output: bool = False

    @property
    def is_async(self) -> bool:
        """Whether it runs on the event loop (else in the worker thread)."""
        return self.kind.startswith("async")

    @property
    def yields(self) -> bool:
        """Whether it is a generator of either colour."""
        return self.kind.endswith("generator")


def is_model(cls: Any) -> bool:
    """Whether ``cls`` is a pydantic model, known by its methods: pydantic is the app's, not ours."""
    return isinstance(cls, type) and hasattr(cls, "model_validate") and hasattr(cls, "model_json_schema")


def schema_of(cls: Any) -> dict[str, Any]:
    """The JSON schema of a model; ``{}`` (anything) for other annotations."""
    return dict(cls.model_json_schema()) if is_model(cls) else {}


def find_functions(app_class: type[Any]) -> dict[str, Function]:
    """All functions by name, in the order defined. Raises `LoadError` if there is none."""
    found: dict[str, Function] = {}
    for base in reversed(_own_classes(app_class)):
        for name, value in vars(base).items():
            if name.startswith("_") or name in HOOKS or not inspect.isfunction(value):
                continue
            function = _inspect(name, getattr(app_class, name))
            if function is not None:
                found[name] = function
    if not found:
        raise LoadError(f"{app_class.__name__} has no run(self, input) with a type-hinted input model")
    return found


def default_function(functions: dict[str, Function]) -> str | None:
    """``run``, else the only function, else None."""
    if DEFAULT in functions:
        return DEFAULT
    return next(iter(functions)) if len(functions) == 1 else None


def own_hook(app_class: type[Any], name: str) -> Callable[..., Any] | None:
    """A hook that the app itself defines; what `BaseApp` does by default is nothing."""
    return next((vars(base)[name] for base in _own_classes(app_class) if name in vars(base)), None)


def setup_model(app_class: type[Any]) -> Any:
    """The model of ``setup(self, config: Model)``; None when setup takes no values."""
    hook = own_hook(app_class, "setup")
    if hook is None:
        return None
    hints = _hints("setup", hook)
    return next((hints.get(name) for name in _parameters(hook) if is_model(hints.get(name))), None)


def setup_takes_values(app_class: type[Any]) -> bool:
    """Whether ``setup`` has a parameter beside ``self``."""
    hook = own_hook(app_class, "setup")
    return hook is not None and any(not is_sdk_class(hint, "Metadata") for hint in _parameter_hints("setup", hook))


def describe(function: Function) -> dict[str, Any]:
    """The entry of `described`."""
    return {
        "name": function.name,
        "description": function.description,
        "kind": "run",
        "input_schema": schema_of(function.input_type) or {"type": "object"},
        "output_schema": schema_of(function.output_type),
        "capabilities": list(function.decoration.get("capabilities") or []),
        "credentials": list(function.decoration.get("credentials") or []),
        "annotations": dict(function.decoration.get("annotations") or {}),
    }


def _own_classes(app_class: type[Any]) -> list[type[Any]]:
    classes: list[type[Any]] = []
    for base in app_class.__mro__:
        if is_sdk_class(base, "BaseApp"):
            break
        classes.append(base)
    return classes


def _inspect(name: str, method: Callable[..., Any]) -> Function | None:
    decoration = getattr(method, _DECORATION, None)
    hints = _hints(name, method)
    names = list(_parameters(method))
    if any(parameter in _SOCKETS for parameter in names):
        return None  # socket functions are another kind of call
    metadata = next((p for p in names if p == "metadata" or is_sdk_class(hints.get(p), "Metadata")), None)
    inputs = [parameter for parameter in names if parameter != metadata]
    input_type = hints.get(inputs[0]) if inputs else None
    wanted = name == DEFAULT or decoration is not None
    if not wanted and not is_model(input_type):
        return None
    output_type = _output(hints.get("return"))
    return Function(
        name=name,
        kind=_kind(method),
        input_name=inputs[0] if inputs else None,
        input_type=input_type,
        output_type=output_type,
        metadata_name=metadata,
        metadata_type=hints.get(metadata) if metadata else None,
        description=inspect.getdoc(method) or "",
        decoration=dict(decoration or {}),
        file_input=_has_file(schema_of(input_type)),
        file_output=_has_file(schema_of(output_type)) or not is_model(output_type),
    )


def _parameters(method: Callable[..., Any]) -> list[str]:
    """The names of the parameters that a call must fill: no ``self``, no defaults, no ``*args``.

    The first one counts even with a default: it is the input.
    """
    every = list(inspect.signature(method).parameters.values())[1:]
    plain = [p for p in every if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return [p.name for index, p in enumerate(plain) if index == 0 or p.default is _MISSING or p.name == "metadata"]


def _parameter_hints(name: str, method: Callable[..., Any]) -> list[Any]:
    hints = _hints(name, method)
    return [hints.get(parameter) for parameter in _parameters(method)]


def _hints(name: str, method: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(method)
    except (NameError, TypeError, AttributeError) as error:
        raise LoadError(f"the type hints of {name}() cannot be resolved: {error}") from error


def _output(hint: Any) -> Any:
    """The model that a function returns or yields; of several alternatives the first model that is no delta."""
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if origin is None or not arguments:
        return hint
    if isinstance(origin, type) and hasattr(origin, "__iter__") and not hasattr(origin, "__getitem__"):
        return _output(arguments[0])
    if isinstance(origin, type) and hasattr(origin, "__aiter__"):
        return _output(arguments[0])
    return next((a for a in map(_output, arguments) if is_model(a) and not derives(a, "StreamDelta")), None)


def _kind(method: Callable[..., Any]) -> str:
    method = inspect.unwrap(method)
    if inspect.isasyncgenfunction(method):
        return "async_generator"
    if inspect.isgeneratorfunction(method):
        return "generator"
    return "async" if inspect.iscoroutinefunction(method) else "sync"


def _has_file(schema: Any) -> bool:
    if isinstance(schema, dict):
        return schema.get("format") == "file" or any(map(_has_file, schema.values()))
    return isinstance(schema, list) and any(map(_has_file, schema))
