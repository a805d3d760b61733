"""``pie run``: an engine and one program in this process, what the program sends on the terminal."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bakehouse.cli import options
from bakehouse.cli.failures import Exit, Failure
from bakehouse.cli.pie.limits import read_limits
from bakehouse.cli.pie.models import served
from bakehouse.cli.pie.terminal import Terminal, feed_lines
from bakehouse.cli.pie.wanted import OWNER, Wanted, manifest_of, manifest_text, python_file, whose
from bakehouse.cli.server import settings_for
from bakehouse.engine.spec import ModelSpec
from bakehouse.inferlets.base import Launch

if TYPE_CHECKING:
    from bakehouse.inferlets.programs import Program, ProgramStore
    from bakehouse.settings import Settings
    from bakehouse.wiring.local import Local

#: Seconds that an interrupted program has to end.
_PATIENCE = 5.0


def run(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[INFERLET] [-- ARGS]",
            help="An installed program, NAME or NAME@1.2.3, unless --path or --native says what to run; "
            "then the program's arguments, after --.",
        ),
    ] = None,
    path: Annotated[
        Path | None, typer.Option("--path", "-p", help="A component that `bakery build` made.", dir_okay=False)
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option("--manifest", "-m", help="Its Pie.toml.  \\[default: Pie.toml beside it]", dir_okay=False),
    ] = None,
    native: Annotated[
        Path | None,
        typer.Option("--native", help="A Python file or a program's folder, run by this Python without a sandbox."),
    ] = None,
    also: Annotated[
        list[Path] | None,
        typer.Option(
            "--also",
            metavar="FILE.wasm",
            help="Another program, which this one spawns; its Pie.toml stands beside it. May be repeated.",
            dir_okay=False,
        ),
    ] = None,
    dummy: Annotated[
        bool, typer.Option("--dummy", help="An engine without weights: it answers nonsense, at once.")
    ] = False,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", help="A model of `pie model list`; may be repeated. With --dummy: its name.  \\[default: all]"
        ),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option("--limit", metavar="NAME=VALUE", help="What the program may use, such as memory=128MiB."),
    ] = None,
    interactive: options.Interactive = False,
    files: Annotated[
        Path, typer.Option("--files", metavar="DIR", help="Where files go that the program sends.", file_okay=False)
    ] = Path("pie-files"),
    home: options.Home = None,
    config: options.Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write everything as JSON, an object per line.")] = False,
) -> None:
    """Start an engine in this process, run one program beside it, and show what it sends until it ends.

    Lines of a standard input that is no terminal are sent to the program as messages. Ctrl-C ends it.
    """
    if path is not None and native is not None:
        raise Failure("--path and --native: give one of them")
    program, arguments = _split(words or [], path is not None or native is not None)
    settings = settings_for(home, config)
    wanted = Wanted(
        program=program,
        path=path,
        manifest=manifest,
        native=native and python_file(native),
        also=tuple(also or ()),
        arguments=tuple(arguments),
        limits=read_limits(limit or [], settings),
        interactive=interactive,
        files=files,
        as_json=as_json,
    )
    _check(wanted)
    specs = served(settings.home, model or [], dummy)
    try:
        status = _run(wanted, specs, settings)
    except KeyboardInterrupt:
        status = Exit.INTERRUPTED
    raise typer.Exit(status)


def _split(words: list[str], named: bool) -> tuple[str | None, list[str]]:
    """The program and its arguments; all are arguments where an option has *named* the program."""
    if named:
        return None, words
    if not words:
        raise Failure("nothing to run", hint="Name an installed program, or give --path FILE.wasm or --native FILE.py.")
    return words[0], words[1:]


def _check(wanted: Wanted) -> None:
    """Refuse early, before an engine is started. Raises Failure."""
    if wanted.manifest is not None and wanted.path is None:
        raise Failure("--manifest goes with --path FILE.wasm")
    if wanted.path is not None:
        manifest_of(wanted.path, wanted.manifest)
    if wanted.also and wanted.program is not None:
        raise Failure("--also goes with --path or --native; what is installed is beside an installed program anyway")
    for path in wanted.also:
        manifest_of(path, None)


def _run(wanted: Wanted, specs: list[ModelSpec], settings: Settings) -> int:
    """Start everything, run the program, end everything; the exit status."""
    from bakehouse.wiring.chosen import FOLDER, owner_limits
    from bakehouse.wiring.local import local_host, mcp_servers

    owner = OWNER if wanted.program is None else whose(settings)
    with ExitStack() as stack:
        # Of this run alone, so that many can run at one time. What is installed is only looked at: a server may run.
        own = None if wanted.program else Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pie-")))
        runner = stack.enter_context(asyncio.Runner())
        # The loop runs only to start and to stop: between, this thread waits for the program, and Ctrl-C reaches it.
        host = local_host(
            specs,
            settings.home / FOLDER,
            programs=own,
            shared=own is None,
            limits=owner_limits(settings),
            most=settings.inferlet_instances,
            mcp=mcp_servers(settings),
        )
        local = runner.run(host.__aenter__())
        stack.callback(lambda: runner.run(host.__aexit__(None, None, None)))
        for path in wanted.also:
            _install(local.programs, path, None)
        terminal = Terminal(wanted.files, as_json=wanted.as_json)
        if wanted.native is not None:
            from bakehouse.cli.pie.native import run_native

            return run_native(wanted, local, terminal)
        return _follow(wanted, local, terminal, _found(wanted, local.programs, owner), owner)


def _found(wanted: Wanted, programs: ProgramStore, owner: str) -> Program:
    """The program, installed for this run where it is a file. Raises `NoSuchProgram`, `BadProgram`."""
    if wanted.path is None:
        return _installed(programs, owner, str(wanted.program))
    return _install(programs, wanted.path, wanted.manifest)


def _installed(programs: ProgramStore, owner: str, name: str) -> Program:
    from bakehouse.inferlets.errors import BadProgram, NoSuchProgram

    try:
        return programs.find(owner, name)
    except (NoSuchProgram, BadProgram) as error:
        hint = "--path FILE.wasm runs a file; `pie install` puts one on the server of this data directory."
        raise Failure(error.detail, hint=hint) from error


def _install(programs: ProgramStore, path: Path, manifest: Path | None) -> Program:
    from bakehouse.inferlets.errors import BadProgram

    text = manifest_text(path, manifest)
    try:
        return programs.install(OWNER, text, path.read_bytes())
    except BadProgram as error:
        raise Failure(f"{path}: {error.detail}") from error


def _follow(wanted: Wanted, local: Local, terminal: Terminal, program: Program, owner: str) -> int:
    """Launch it and wait for its end; the exit status."""
    launch = Launch(
        id=str(uuid.uuid4()),
        owner=owner,
        username=OWNER,
        program=program.ref,
        arguments=wanted.arguments,
        limits=wanted.limits,
    )
    instance = local.host.launch(launch, terminal, program)
    if wanted.interactive or not sys.stdin.isatty():
        feed_lines(sys.stdin, instance.send, terminal.over)
    try:
        outcome = instance.wait()
    except KeyboardInterrupt:
        instance.terminate()
        instance.wait(_PATIENCE)
        return Exit.INTERRUPTED
    assert outcome is not None
    return terminal.conclude(outcome)
