"""The commands of ``pie`` that speak to a running server: install and launch there, list, attach, terminate."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bakehouse.cli import options
from bakehouse.cli.failures import Exit, Failure
from bakehouse.cli.output import Output
from bakehouse.cli.pie.talking import talk
from bakehouse.cli.pie.terminal import Terminal, feed_lines
from bakehouse.cli.pie.wanted import manifest_text
from bakehouse.inferlets.base import Failure as Failed
from bakehouse.inferlets.base import Outcome

if TYPE_CHECKING:
    from inferlet.client import Client, Process

Id = Annotated[str, typer.Argument(metavar="PROCESS", help="A process, as `pie list` shows it.")]
Files = Annotated[
    Path, typer.Option("--files", metavar="DIR", help="Where files go that the program sends.", file_okay=False)
]


def install(
    path: Annotated[Path, typer.Argument(metavar="FILE.wasm", help="What `bakery build` made.", dir_okay=False)],
    manifest: Annotated[
        Path | None,
        typer.Option("--manifest", "-m", help="Its Pie.toml.  \\[default: Pie.toml beside it]", dir_okay=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace other content of the same version.")] = False,
    url: options.Url = None,
    key: options.Key = None,
    home: options.Home = None,
    json: options.Json = False,
) -> None:
    """Install a program on a running server."""
    text = manifest_text(path, manifest)
    name = talk(url, key, home, lambda client: client.install(path.read_bytes(), text, force=force))
    Output(json).result({"program": name}, lambda console: console.print(f"installed {name}", markup=False))


def uninstall(
    program: Annotated[str, typer.Argument(metavar="NAME@VERSION", help="An installed program.")],
    url: options.Url = None,
    key: options.Key = None,
    home: options.Home = None,
    json: options.Json = False,
) -> None:
    """Remove a program from a running server; processes of it go on."""
    talk(url, key, home, lambda client: client.remove(program))
    Output(json).result({"program": program}, lambda console: console.print(f"removed {program}", markup=False))


def programs(
    url: options.Url = None, key: options.Key = None, home: options.Home = None, json: options.Json = False
) -> None:
    """Show the programs that are installed on a running server."""
    found = talk(url, key, home, lambda client: client.programs())
    Output(json).rows(found, ["PROGRAM", "DESCRIPTION"], lambda row: (row["program"], row["description"]))


def processes(
    url: options.Url = None, key: options.Key = None, home: options.Home = None, json: options.Json = False
) -> None:
    """Show the processes of a running server, those that ended lately included."""
    found = talk(url, key, home, lambda client: client.processes())
    Output(json).rows(
        found,
        ["PROCESS", "PROGRAM", "STATE", "ATTACHED", "STARTED"],
        lambda row: (
            row["process"],
            row["program"],
            row["state"],
            "yes" if row["attached"] else "no",
            datetime.fromtimestamp(row["started"], UTC).strftime("%Y-%m-%d %H:%M:%S"),
        ),
    )


def terminate(
    process: Id,
    url: options.Url = None,
    key: options.Key = None,
    home: options.Home = None,
    json: options.Json = False,
) -> None:
    """End a process."""
    talk(url, key, home, lambda client: client.terminate(process))
    Output(json).result({"process": process}, lambda console: console.print(f"terminated {process}", markup=False))


def submit(
    words: Annotated[list[str], typer.Argument(metavar="INFERLET [-- ARGS]", help="An installed program.")],
    detach: Annotated[bool, typer.Option("--detach", help="Show its id and leave it to itself.")] = False,
    interactive: options.Interactive = False,
    files: Files = Path("pie-files"),
    url: options.Url = None,
    key: options.Key = None,
    home: options.Home = None,
    json: Annotated[bool, typer.Option("--json", help="Write everything as JSON, an object per line.")] = False,
) -> None:
    """Launch a program on a running server and show what it sends until it ends.

    Ctrl-C terminates it. Lines of a standard input that is no terminal are sent to it as messages.
    """
    program, *arguments = words
    terminal = Terminal(files, as_json=json)

    async def work(client: Client) -> int:
        process = await client.launch(program, arguments, attach=not detach)
        if detach:
            Output(json).result({"process": process.id}, lambda console: console.print(process.id, markup=False))
            return Exit.OK
        return await _follow(process, terminal, interactive, end=True)

    raise typer.Exit(talk(url, key, home, work))


def attach(
    process: Id,
    after: Annotated[int | None, typer.Option(help="Show again what followed this event.", min=0)] = None,
    interactive: options.Interactive = False,
    files: Files = Path("pie-files"),
    url: options.Url = None,
    key: options.Key = None,
    home: options.Home = None,
    json: Annotated[bool, typer.Option("--json", help="Write everything as JSON, an object per line.")] = False,
) -> None:
    """Show what a process sends, first what nobody has seen, until it ends. Ctrl-C leaves it to itself."""
    terminal = Terminal(files, as_json=json)

    async def work(client: Client) -> int:
        return await _follow(await client.attach(process, after=after), terminal, interactive, end=False)

    raise typer.Exit(talk(url, key, home, work))


async def _follow(process: Process, terminal: Terminal, interactive: bool, *, end: bool) -> int:
    """Show its events and send it lines; the exit status. Interrupted, *end* it or leave it."""
    if interactive or not sys.stdin.isatty():
        loop = asyncio.get_running_loop()
        feed_lines(sys.stdin, lambda line: _signal(process, line, loop), terminal.over)
    try:
        return await _show(process, terminal)
    except asyncio.CancelledError:
        if end:
            await process.terminate()
        raise
    finally:
        terminal.over.set()


def _signal(process: Process, line: str, loop: asyncio.AbstractEventLoop) -> None:
    """From the thread that reads lines. Raises what `feed_lines` knows."""
    from inferlet.errors import HostError, LimitExceeded

    from bakehouse.inferlets.errors import NotRunning, Refused

    try:
        asyncio.run_coroutine_threadsafe(process.signal(line), loop).result()
    except LimitExceeded as error:
        raise Refused(str(error), field=str(error).partition(":")[0]) from error  # texts begin with their limit
    except (HostError, RuntimeError) as error:
        raise NotRunning(str(error)) from error


async def _show(process: Process, terminal: Terminal) -> int:
    from inferlet.client import Ended, File, Gap, Message, Stderr, Stdout

    async for event in process:
        if isinstance(event, Message):
            terminal.message(event.text)
        elif isinstance(event, Stdout):
            terminal.output("stdout", event.text)
        elif isinstance(event, Stderr):
            terminal.output("stderr", event.text)
        elif isinstance(event, File):
            terminal.file(event.data)
        elif isinstance(event, Gap):
            terminal.gap(event.missed)
        elif isinstance(event, Ended):
            return terminal.conclude(_outcome(event))
    raise Failure("the process ended without saying how", Exit.FAILED)


def _outcome(event: Any) -> Outcome:
    error = event.error
    if error is None:
        return Outcome(event.result)
    return Outcome(failure=Failed(error.code, str(error), error.limit, error.traceback))
