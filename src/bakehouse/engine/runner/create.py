"""Runners by name, each imported when it is chosen."""

from __future__ import annotations

from importlib import import_module

from bakehouse.engine.errors import ModelRefused
from bakehouse.engine.runner.base import Runner
from bakehouse.engine.spec import ModelSpec

#: Name to the module and the function in it that makes the runner from a `ModelSpec`.
RUNNERS = {
    "dummy": ("bakehouse.engine.runner.dummy", "create"),
    "torch": ("bakehouse.engine.runner.torch.runner", "create"),
}


def runner_name(spec: ModelSpec) -> str:
    return "dummy" if spec.is_dummy else "torch"


def create_runner(spec: ModelSpec) -> Runner:
    """The runner of *spec*, its weights loaded and no KV pool yet.

    Raises `ModelRefused`, which names the file or the architecture, and also says what to install where it is missing.
    """
    module, function = RUNNERS[runner_name(spec)]
    try:
        make = getattr(import_module(module), function)
    except ModuleNotFoundError as missing:
        if (missing.name or "").split(".")[0] == "bakehouse":
            raise
        raise ModelRefused(
            f"model {spec.name}: {missing.name} is not installed; local models need the extra: pip install "
            "'bakehouse[engine]'"
        ) from missing
    runner: Runner = make(spec)
    return runner
