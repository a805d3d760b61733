"""A real ``bakehouse serve`` process: start, wait for readiness, kill, restart, deploy to it."""

from __future__ import annotations

import ctypes
import io
import json
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from tests.support.waiting import wait_until

PR_SET_PDEATHSIG = 1
COMPLETED, FAILED, CANCELLED = 10, 11, 12
TERMINAL = (COMPLETED, FAILED, CANCELLED)
ENTRY = "from bakehouse.cli import main; main()"  # what the console script does
OUR_VARIABLES = ("BAKEHOUSE_", "INFERENCE_")
EXCLUDED = {"__pycache__", ".venv", "node_modules", ".git"}


# Every client loads the machine's certificates unless it is given a context: 20 ms each, for plain http.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free, for a server that keeps it over its restarts.

    Below the range that the system takes for outgoing connections (32768 and up): one of those could sit on the port
    while its server is down.
    """
    while True:
        port = random.randrange(16384, 32768)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _environment() -> dict[str, str]:
    """Ours without the variables that would be taken for settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith(OUR_VARIABLES)}


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def pack(app_dir: Path) -> bytes:
    """The folder as a zip, without what a build leaves behind."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(app_dir.rglob("*")):
            relative = path.relative_to(app_dir)
            if path.is_file() and not EXCLUDED & set(relative.parts):
                archive.write(path, relative.as_posix())
    return buffer.getvalue()


class DeployFailed(RuntimeError):
    """A build task ended in something else than COMPLETED; the message carries its logs."""


class Server:
    """One server process on its own home and port.

    ``base_url``, ``key`` and ``pid`` are valid after `start`. ``api`` is an authorised httpx client for it.
    """

    def __init__(
        self,
        home: Path,
        *,
        database: str | None = None,
        arguments: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        port: int | None = None,
    ) -> None:
        self.home = home
        self.port = port or free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.key = ""
        self.process: subprocess.Popen[bytes] | None = None
        self._database = database
        self._arguments = list(arguments)
        self._env = dict(env or {})
        self._api: httpx.Client | None = None

    @property
    def log_path(self) -> Path:
        return self.home.parent / f"{self.home.name}.log"

    @property
    def pid(self) -> int:
        assert self.process is not None, "the server was not started"
        return self.process.pid

    @property
    def api(self) -> httpx.Client:
        if self._api is None:
            self._api = self.client()
        return self._api

    def client(self, key: str | None = None, timeout: float = 60.0) -> httpx.Client:
        """A new httpx client that sends *key* (ours when None)."""
        headers = {"Authorization": f"Bearer {self.key if key is None else key}"}
        return httpx.Client(base_url=self.base_url, headers=headers, timeout=timeout, verify=NO_TLS)

    def command(self) -> list[str]:
        database = ["--database", self._database] if self._database else []
        address = ["--home", str(self.home), "--host", "127.0.0.1", "--port", str(self.port)]
        return [sys.executable, "-c", ENTRY, "serve", *address, *database, *self._arguments]

    def start(self, timeout: float = 60.0) -> Server:
        """Start the process and return when it answers ``/ready`` with 200; raise with its log when it does not."""
        self.home.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**_environment(), "PYTHONUNBUFFERED": "1", **self._env},
                preexec_fn=_die_with_parent,  # noqa: PLW1509  one prctl call, which takes no lock
                process_group=0,
            )
        try:
            wait_until(self._is_ready, "the server's /ready", timeout)
        except BaseException as error:
            self.kill()
            raise RuntimeError(f"{' '.join(self.command())} did not become ready:\n{self.log_tail()}") from error
        self.key = json.loads((self.home / "endpoint.json").read_text())["key"]
        return self

    def _is_ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise RuntimeError(f"the server exited with {self.process.returncode}")
        try:
            ready = httpx.get(f"{self.base_url}/ready", timeout=5, verify=NO_TLS).status_code == 200
            # Its own word counts: another server might answer on this port.
            return ready and json.loads((self.home / "endpoint.json").read_text())["pid"] == self.process.pid
        except (httpx.TransportError, FileNotFoundError):
            return False

    def log_tail(self, size: int = 8000) -> str:
        return self.log_path.read_text(errors="replace")[-size:] if self.log_path.exists() else ""

    def kill(self) -> None:
        """SIGKILL, as a power cut would; returns when the process is gone."""
        self._close_client()
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(20)

    def stop(self, timeout: float = 30.0) -> int:
        """SIGTERM and wait; returns the exit status, kills the process when *timeout* passes and raises."""
        assert self.process is not None
        self._close_client()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        return int(self.process.returncode)

    def restart(self) -> Server:
        """Start again on the same home and port after `kill` or `stop` (kills it if it still runs)."""
        self.kill()
        return self.start()

    def _close_client(self) -> None:
        if self._api is not None:
            self._api.close()
            self._api = None

    # What most tests say to a server.

    def upload(self, content: bytes, filename: str, content_type: str = "application/octet-stream") -> dict[str, Any]:
        """Upload by ``POST /files`` and ``PUT``; returns the file's record."""
        entry = {"uri": "", "filename": filename, "content_type": content_type, "size": len(content)}
        (record,) = self.data(self.api.post("/files", json={"files": [entry]}))
        httpx.put(
            record["upload_url"], content=content, headers={"Content-Type": content_type}, verify=NO_TLS
        ).raise_for_status()
        return dict(record)

    def deploy(self, app_dir: Path | str, timeout: float = 120.0, **fields: Any) -> dict[str, Any]:
        """Deploy a folder as ``bakehouse deploy`` does and wait for its build.

        Returns the app as ``GET /apps/{id}`` shows it after the build; *fields* go into the ``POST /apps`` body.
        """
        folder = Path(app_dir)
        record = self.upload(pack(folder), f"{folder.name}.zip", "application/zip")
        app = self.data(self.api.post("/apps", json={"version": {"package_uri": record["uri"]}, **fields}))
        build = self.wait(app["build_task_id"], timeout)
        if build["status"] != COMPLETED:
            raise DeployFailed(f"{folder.name}: {build.get('error')}\n" + "\n".join(map(str, build.get("logs") or [])))
        return dict(self.data(self.api.get(f"/apps/{app['id']}")))

    def run(
        self, app: str, payload: Mapping[str, Any] | None = None, wait: float = 30.0, **body: Any
    ) -> dict[str, Any]:
        """``POST /apps/run`` and wait for the end; returns the finished task whatever its status is."""
        request = {"app": app, "input": dict(payload or {}), **body}
        task = self.data(self.api.post("/apps/run", json=request, headers={"Prefer": f"wait={wait:g}"}))
        return task if task["status"] in TERMINAL else self.wait(task["id"], wait)

    def new_owner(self, name: str) -> str:
        """A key of another owner, made on the machine as an operator does."""
        command = [sys.executable, "-c", "from bakehouse.cli import main; main()", "keys", "create", "--owner", name]
        home = ["--home", str(self.home), *(["--database", self._database] if self._database else []), "--json"]
        done = subprocess.run([*command, *home], capture_output=True, check=True, env=_environment())
        return str(json.loads(done.stdout)["key"])

    def task(self, task_id: str) -> dict[str, Any]:
        return dict(self.data(self.api.get(f"/tasks/{task_id}")))

    def wait(self, task_id: str, timeout: float = 60.0) -> dict[str, Any]:
        """Poll until the task is terminal and return it."""
        return wait_until(lambda: self._if_terminal(task_id), f"the end of task {task_id}", timeout, every=0.05)

    def _if_terminal(self, task_id: str) -> dict[str, Any] | None:
        task = self.task(task_id)
        return task if task["status"] in TERMINAL else None

    @staticmethod
    def data(response: httpx.Response) -> Any:
        """The ``data`` of a success envelope; raises with the body of anything else."""
        if response.is_error:
            raise AssertionError(f"{response.request.method} {response.url}: {response.status_code} {response.text}")
        return response.json()["data"]
