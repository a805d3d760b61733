"""``bakehouse demo``: a real server, four real apps, one page of text, all in about a minute."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from rich.console import Console
from rich.panel import Panel
from rich.rule import Rule
from rich.status import Status
from rich.text import Text

from bakehouse.cli.failures import Exit, Failure
from bakehouse.cli.run import save_files
from bakehouse.cli.watch import Watch, status_text

if TYPE_CHECKING:
    from inferencesh import Inference

EXAMPLES = Path(__file__).parents[3] / "examples" / "apps"
APPS = ("ocr", "image-edit", "counter", "slow")
START_SECONDS = 60.0
STOP_SECONDS = 40.0
_ENTRY = "from bakehouse.cli import main; main()"
# Lines that uv writes for every package; the demo shows what happens, not what is in it.
_QUIET = (" + ", "Using Python", "Resolved", "Prepared", "Installed", "Bytecode", " Downloaded", "functions:")


def demo(home: Path | None, keep: bool) -> int:
    """Show the platform end to end; 0 when all of it worked, 1 with the reason otherwise.

    The server's data lies in *home*, or in a temporary directory that *keep* leaves in place.
    """
    console = Console(highlight=False)
    console.soft_wrap = not console.is_terminal  # a file has no width
    console.print(Rule("[bold]Bakehouse"), "")
    try:
        with _data_directory(home, keep, console) as directory:
            _Demo(console, directory).run()
    except KeyboardInterrupt:
        console.print(Text("interrupted", style="yellow"))
        return Exit.INTERRUPTED
    except Exception as error:
        # Whoever runs a demo wants the reason, whatever it is; a fault of ours is named by its type.
        known = isinstance(error, Failure) or type(error).__module__.startswith(("infsh", "inferencesh", "bakehouse"))
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        console.print(Text.assemble(("the demo failed: ", "bold red"), reason))
        return Exit.FAILED
    return Exit.OK


@contextmanager
def _data_directory(home: Path | None, keep: bool, console: Console) -> Iterator[Path]:
    if home is not None:
        yield home
        return
    directory = Path(tempfile.mkdtemp(prefix="bakehouse-demo-home-"))
    try:
        yield directory
    finally:
        if keep:
            console.print(Text(f"the data directory stays: {directory}", style="dim"))
        else:
            _remove(directory)


def _remove(directory: Path) -> None:
    for path in directory.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)  # environments are read-only
    shutil.rmtree(directory)


class _Server:
    """A server process on its own data directory and a free port."""

    def __init__(self, home: Path) -> None:
        home = home.absolute()
        self.log = home.with_name(home.name + ".log")
        endpoint = home / "endpoint.json"
        endpoint.unlink(missing_ok=True)
        argv = [sys.executable, "-c", _ENTRY, "serve", "--home", str(home), "--host", "127.0.0.1", "--port", "0"]
        # Settings of a real server (a database!) in the environment or the working directory are not the demo's.
        environ = {key: value for key, value in os.environ.items() if not key.startswith("BAKEHOUSE_")}
        home.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ, cwd=home
            )
        try:
            self.url, self.key = self._wait(endpoint)
        except BaseException:
            self.stop()
            raise

    def _wait(self, endpoint: Path) -> tuple[str, str]:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise Failure(f"the server ended at once:\n{self._tail()}", Exit.FAILED)
            if endpoint.is_file():
                found = json.loads(endpoint.read_text())
                if httpx.get(f"{found['url']}/ready").status_code == 200:
                    return found["url"], found["key"]
            time.sleep(0.05)  # the file and /ready are all that a process outside can look at
        raise Failure(f"the server was not ready after {START_SECONDS:g} s:\n{self._tail()}", Exit.FAILED)

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]

    def stop(self) -> int:
        """Stop as an operator would; its exit status. What does not stop in time is killed."""
        self._process.terminate()
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise Failure(f"the server did not stop within {STOP_SECONDS:g} s", Exit.FAILED) from None
        finally:
            if self._process.returncode == 0:
                self.log.unlink(missing_ok=True)


class _Demo:
    """The acts, in order."""

    def __init__(self, console: Console, home: Path) -> None:
        self._console = console
        self._home = home
        self._began = time.monotonic()
        self._saved = Path(tempfile.mkdtemp(prefix="bakehouse-demo-"))

    def run(self) -> None:
        from inferencesh import Inference

        missing = [name for name in APPS if not (EXAMPLES / name / "inf.yml").is_file()]
        if missing:
            raise Failure(f"the demo needs the examples of a checkout; {EXAMPLES} has no {', '.join(missing)}")
        with self._working("starting a server"):
            server = _Server(self._home)
        try:
            self._title("Server", f"{server.url}  SQLite, local disk, child processes")
            self._deploy(server)
            with Inference(api_key=server.key, base_url=server.url) as client:
                self._read_page(client, server.url)
                self._edit(client, server.url)
                self._count(client)
        finally:
            with self._working("stopping the server"):
                code = server.stop()
        if code:
            raise Failure(f"the server ended with status {code}; its log is {server.log}", Exit.FAILED)
        self._title("Done", f"the server has stopped; all of it took {time.monotonic() - self._began:.0f} s")

    # ---- acts -------------------------------------------------------------------------------------------------

    def _deploy(self, server: _Server) -> None:
        from infsh._deploy import deploy
        from infsh._remote import Remote

        self._title("Deploy", "each app gets its own environment, built by uv")
        with Remote(server.url, server.key) as remote:
            for name in APPS:
                began = time.monotonic()
                with self._working(name) as working:
                    app = deploy(EXAMPLES / name, remote, partial(self._built, name, working))
                functions = ", ".join((app["task"].get("output") or {}).get("functions") or [])
                self._done(name, f"{time.monotonic() - began:5.1f} s   {functions}")

    def _built(self, name: str, working: Status | None, update: Mapping[str, Any]) -> None:
        for line in update.get("logs") or ():
            if line.startswith(_QUIET):
                continue
            if working is not None:
                working.update(Text.assemble((f"{name}  ", "bold"), (line[:90], "dim")))
            else:
                self._console.print(Text(f"    {line}"))

    def _read_page(self, client: Inference, url: str) -> None:
        page = EXAMPLES / "ocr" / "page.png"
        self._title("Read", f"{page.name} with the OCR app: status, logs, progress and lines as they come")
        began = time.monotonic()
        task = self._follow(client, {"app": "ocr", "input": {"image": page}})
        cold = time.monotonic() - began
        output = task["output"]
        self._console.print(Panel(Text(output["text"]), title="what the page says", expand=False, padding=(0, 2)))
        self._save("annotated image", output["annotated"], url)
        began = time.monotonic()
        again = client.run({"app": "ocr", "input": {"image": page}})
        warm = time.monotonic() - began
        if again["output"]["text"] != output["text"]:
            raise Failure("the warm run read something else than the cold one", Exit.FAILED)
        self._done("cold, warm", f"{cold:.2f} s with process and models to load, {warm:.2f} s on the warm instance")

    def _edit(self, client: Inference, url: str) -> None:
        page = EXAMPLES / "ocr" / "page.png"
        self._title("Edit", "the same page, in three steps with a preview file each")
        previews: list[str] = []
        params = {"app": "image-edit", "input": {"image": page, "edit": "invert", "steps": 3}}
        for update in client.run(params, stream=True):
            preview = (update.get("partial_output") or {}).get("preview")
            if preview and preview not in previews:
                previews.append(preview)
            last = update
        if status_text(last) != "completed":
            raise Failure(f"image-edit {status_text(last)}: {last.get('error')}", Exit.FAILED)
        self._done("previews seen", str(len(previews)))
        self._save("inverted image", client.get_task(last["id"])["output"]["image"], url)

    def _count(self, client: Inference) -> None:
        self._title("Count", "a session: calls that meet the same instance, and its state")
        with client.session("counter") as counter:
            for function, values in (("increment", {"by": 40}), ("increment", {"by": 2}), ("read", {})):
                began = time.monotonic()
                value = counter.call(function, values)["output"]["value"]
                took = (time.monotonic() - began) * 1000
                self._done(f"{function} {values.get('by', '')}".strip(), f"{value:>3}   {took:4.0f} ms")
        if value != 42:
            raise Failure(f"the counter says {value} instead of 42", Exit.FAILED)

    def _follow(self, client: Inference, params: dict[str, Any]) -> dict[str, Any]:
        """Run and show everything; the finished task. Raises Failure when it ends in anything but success."""
        shown, states = 0, dict[str, None]()
        with Watch(self._console, partial=False) as watch:
            for update in client.run(params, stream=True):
                watch.show(update)
                states[status_text(update)] = None
                lines = (update.get("partial_output") or {}).get("lines") or []
                for line in lines[shown:]:
                    self._console.print(Text.assemble(("  ≈ ", "blue"), line["text"]))
                shown = max(shown, len(lines))
                last = update
        if status_text(last) != "completed":
            raise Failure(f"{params['app']} {status_text(last)}: {last.get('error')}", Exit.FAILED)
        self._done("states", " → ".join(states))
        return dict(client.get_task(last["id"]))

    def _save(self, what: str, uri: str, url: str) -> None:
        """Download a file: when the demo is over, its server is no more."""
        for path in save_files(uri, self._saved, url):
            self._done(what, str(path))

    # ---- how it looks -----------------------------------------------------------------------------------------

    def _title(self, word: str, text: str) -> None:
        self._console.print(Text.assemble((f"\n{word:<8}", "bold cyan"), text))

    def _done(self, what: str, result: str) -> None:
        self._console.print(Text.assemble(("  ✓ ", "green"), f"{what:<16} {result}"), soft_wrap=True)

    def _working(self, text: str) -> AbstractContextManager[Status | None]:
        """A moving line while something takes its time; nothing where lines do not move."""
        return self._console.status(Text(text)) if self._console.is_terminal else nullcontext()
