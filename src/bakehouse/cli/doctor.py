"""``bakehouse doctor``: whether this machine can run a server, and what it will not have."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal

import typer
from rich.console import Console
from rich.text import Text

from bakehouse.build.machine import read_machine
from bakehouse.cli import options
from bakehouse.cli.endpoint import find_endpoint
from bakehouse.cli.failures import Exit, Failure
from bakehouse.cli.local import on_store
from bakehouse.cli.output import Output
from bakehouse.cli.server import settings_for
from bakehouse.core.errors import BakehouseError
from bakehouse.launch.isolate import describe_isolation
from bakehouse.settings import Settings

LOW_DISK = 2 * 2**30
GIB = 2**30

State = Literal["ok", "warning", "error"]
_MARKS: dict[State, tuple[str, str]] = {"ok": ("ok", "green"), "warning": ("note", "yellow"), "error": ("BAD", "red")}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look found. A warning does not keep a server from running; an error does."""

    check: str
    state: State
    text: str


def _python(_: Settings) -> Iterator[Finding]:
    found = ".".join(map(str, sys.version_info[:3]))
    good = sys.version_info >= (3, 11)
    yield Finding("python", "ok" if good else "error", found if good else f"{found}; 3.11 or newer is needed")


def _uv(_: Settings) -> Iterator[Finding]:
    import uv

    try:
        yield Finding("uv", "ok", uv.find_uv_bin())
    except FileNotFoundError as error:
        yield Finding("uv", "error", f"{error}; reinstall with: pip install --force-reinstall uv")


def _disk(settings: Settings) -> Iterator[Finding]:
    place = next(path for path in (settings.home, *settings.home.parents) if path.exists())
    if not os.access(place, os.W_OK):
        yield Finding("disk", "error", f"{place} cannot be written; choose another directory with --home")
        return
    free = shutil.disk_usage(place).free
    text = f"{free / GIB:.1f} GiB free at {settings.home}"
    yield Finding("disk", "ok" if free >= LOW_DISK else "warning", text)


def _database(settings: Settings) -> Iterator[Finding]:
    if settings.database_url is None and not (settings.home / "bakehouse.db").exists():
        yield Finding("database", "ok", f"{settings.home / 'bakehouse.db'} will be made at the first start")
        return
    try:
        wrong = on_store(settings, lambda store: store.check_integrity())
    except BakehouseError as error:
        yield Finding("database", "error", error.detail)
        return
    if not wrong:
        yield Finding("database", "ok", "reachable, nothing wrong in it")
    for line in wrong:
        yield Finding("database", "error", line)


def _port(settings: Settings) -> Iterator[Finding]:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            yield _taken(settings, error)
            return
    yield Finding("port", "ok", f"{settings.host}:{settings.port} is free")


def _taken(settings: Settings, error: OSError) -> Finding:
    where = f"{settings.host}:{settings.port}"
    try:
        ours = find_endpoint(home=settings.home).url.endswith(f":{settings.port}")
    except Failure:
        ours = False
    if ours:
        return Finding("port", "ok", f"{where} is in use, as it should be: by the server of this data directory")
    return Finding("port", "error", f"{where}: {error.strerror}; choose another with --port")


def _isolation(settings: Settings) -> Iterator[Finding]:
    missing = describe_isolation(settings.isolation)
    if not missing:
        yield Finding("isolation", "ok", "apps are confined fully")
    for line in missing:
        yield Finding("isolation", "warning", f"not enforced: {line}")


def _machine(_: Settings) -> Iterator[Finding]:
    machine = read_machine()
    yield Finding("memory", "ok", f"{machine.ram / GIB:.1f} GiB" if machine.ram else "not known")
    text = ", ".join(f"{gpu.type} {gpu.vram / GIB:.0f} GiB" for gpu in machine.gpus)
    yield Finding("gpu", "ok", text or "none; apps that ask for one are refused")


_CHECKS: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
    _python,
    _uv,
    _disk,
    _database,
    _port,
    _isolation,
    _machine,
)


def doctor(
    home: options.Home = None,
    host: str | None = None,
    port: int | None = None,
    database: options.Database = None,
    config: options.Config = None,
    json: options.Json = False,
) -> None:
    """Check this machine, the settings and the data directory; the exit status is 1 when something is bad."""
    settings = settings_for(home, config, database=database, host=host, port=port)
    findings = [finding for check in _CHECKS for finding in check(settings)]
    Output(json).result([asdict(finding) for finding in findings], lambda console: draw(console, findings))
    if any(finding.state == "error" for finding in findings):
        raise typer.Exit(Exit.FAILED)


def draw(console: Console, findings: list[Finding]) -> None:
    """A line for each."""
    for finding in findings:
        word, color = _MARKS[finding.state]
        console.print(Text.assemble((f"{word:5}", color), f"{finding.check:10} {finding.text}"))
