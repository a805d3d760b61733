"""``pie doctor``: what programs need here, and what they would lack."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import typer

from bakehouse.cli import options
from bakehouse.cli.doctor import Finding, draw
from bakehouse.cli.failures import Exit
from bakehouse.cli.output import Output
from bakehouse.cli.server import settings_for
from bakehouse.core.errors import BakehouseError
from bakehouse.settings import Settings

#: A library, what does not work without it, the extra that brings it, and whether it is needed at all.
_LIBRARIES = (
    ("wasmtime", "programs cannot run", "inferlets", True),
    ("llguidance", "grammars are refused", "inferlets", True),
    ("websockets", "`pie serve` and clients do not work", "inferlets", True),
    ("bakehouse-inferlet", "`pie run --native` and `bakery build` do not work", "inferlets", True),
    ("componentize-py", "`bakery build` does not work", "inferlets", False),
    ("mcp", "MCP servers cannot be reached", "inferlets", False),
    ("torch", "only --dummy models run", "engine", False),
)


def _python(_: Settings) -> Iterator[Finding]:
    found = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", "ok" if sys.version_info >= (3, 11) else "error", found)


def _libraries(_: Settings) -> Iterator[Finding]:
    for name, lacking, extra, needed in _LIBRARIES:
        try:
            yield Finding(name, "ok", version(name))
        except PackageNotFoundError:
            text = f"not installed, so {lacking}; pip install 'bakehouse[{extra}]' brings it"
            yield Finding(name, "error" if needed else "warning", text)


def _sandbox(_: Settings) -> Iterator[Finding]:
    """Whether machine code may be made here, which some hardened machines forbid."""
    try:
        from bakehouse.inferlets.sandbox import Sandbox
    except ModuleNotFoundError:
        return  # said above
    with tempfile.TemporaryDirectory() as folder:
        Sandbox(Path(folder) / "compiled").close()
    yield Finding("sandbox", "ok", "programs see no files, no network and no processes of this machine")
    yield Finding("sandbox", "warning", "not enforced: a program run with --native is not in the sandbox")


def _models(settings: Settings) -> Iterator[Finding]:
    from bakehouse.wiring.models import Models

    try:
        found = [spec.name for spec in Models(settings.home).list()]
    except BakehouseError as error:
        yield Finding("models", "error", error.detail)
        return
    yield Finding("models", "ok", ", ".join(found) if found else "none recorded; `pie model add`, or --dummy")


_CHECKS = (_python, _libraries, _sandbox, _models)


def doctor(home: options.Home = None, config: options.Config = None, json: options.Json = False) -> None:
    """Check whether programs can be built, run and served here; the exit status is 1 when something is bad."""
    settings = settings_for(home, config)
    findings = [finding for check in _CHECKS for finding in check(settings)]
    Output(json).result([asdict(finding) for finding in findings], lambda console: draw(console, findings))
    if any(finding.state == "error" for finding in findings):
        raise typer.Exit(Exit.FAILED)
