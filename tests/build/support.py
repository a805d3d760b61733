"""Packages, wheels and versions for the tests of the build room."""

from __future__ import annotations

import asyncio
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bakehouse.build.builder import Builder, BuildSettings, Describe
from bakehouse.build.executor import BuildExecutor
from bakehouse.build.machine import Machine
from bakehouse.build.process import Spawn, spawn_plain
from bakehouse.build.unpack import scan
from bakehouse.core.app import Manifest, Version
from bakehouse.core.executor import Call, ExecutorEvent, Failure, Finished, Logged, Lost, Progressed, Returned
from bakehouse.core.ids import new_id, short_id
from bakehouse.core.task import Task, TaskStatus

APP = """
import infsh


class App:
    def run(self, input_data):
        return input_data
"""

# What the server's real probe does in an isolated child over its messages, in five lines.
PROBE = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("inference", sys.argv[1] + "/inference.py")
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(json.dumps([name for name in vars(module.App) if not name.startswith("_")]))
"""


class LoadFailed(Exception):
    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


async def describe_by_import(
    *, app_dir: Path, python: Path, environ: dict[str, str], timeout: float, on_log: Callable[[str, str], None]
) -> dict[str, Any]:
    """The probe of these tests: a child of the app's interpreter that imports the app and lists its functions."""
    process = await asyncio.create_subprocess_exec(
        *(python, "-I", "-c", PROBE, app_dir),
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), timeout)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    lines = out.decode().splitlines()
    for line in lines[:-1]:
        on_log("stdout", line)
    if process.returncode:
        trace = err.decode()
        raise LoadFailed(Failure(trace.splitlines()[-1], code="import_failed", traceback=trace))
    functions = [{"name": name, "input_schema": {"type": "object"}} for name in json.loads(lines[-1])]
    return {"functions": functions, "setup_schema": None, "default_function": None, "concurrency_ok": False}


def app_files(**changes: str) -> dict[str, str]:
    """The files of a small app; a key such as ``inf_yml`` replaces ``inf.yml``."""
    files = {"inf.yml": "name: shout\n", "inference.py": APP, "requirements.txt": ""}
    for key, text in changes.items():
        files[key.replace("_", ".")] = text
    return files


def make_zip(path: Path, files: Mapping[str, str | bytes], executable: tuple[str, ...] = ()) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = (0o100755 if name in executable else 0o100644) << 16
            archive.writestr(info, content)
    return path


def make_tar(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def make_wheel(folder: Path, dist: str, module: str, *, version: str = "0.1.0", requires: tuple[str, ...] = ()) -> Path:
    """A pure wheel of one module, without any build tool."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{dist}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {line}\n" for line in requires)
    files = {
        f"{module}/__init__.py": f"VERSION = {version!r}\nDIST = {dist!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {dist}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in files) + f"{info}/RECORD,,\n"
    return make_zip(folder / f"{dist}-{version}-py3-none-any.whl", {**files, f"{info}/RECORD": record})


PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "{name}"
version = "1.0"
"""


def sdist(name: str, backend: str) -> bytes:
    """A source package that brings its own build backend, so that building it needs no network."""
    files = {
        "pyproject.toml": PROJECT.format(name=name),
        "backend.py": backend,
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path, text in files.items():
            info = tarfile.TarInfo(f"{name}-1.0/{path}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def make_version(digest: str = "", owner_id: str = "own_1") -> Version:
    version_id = new_id("ver")
    return Version(
        id=version_id,
        app_id=new_id("app"),
        owner_id=owner_id,
        short_id=short_id(version_id),
        digest=digest,
        status="building",
        created_at=0,
        package_file_id=new_id("file"),
        manifest=Manifest(name="shout"),
    )


class Bench:
    """A data directory, its packages, and builders over it that share uv's cache."""

    def __init__(self, folder: Path, wheels: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.wheels = wheels
        self.packages: dict[str, Path] = {}
        self.environ: Mapping[str, str] = os.environ
        self.fetched = 0

    def version(self, files: Mapping[str, str | bytes], owner_id: str = "own_1") -> Version:
        """A version of a package that holds *files*."""
        package = make_zip(self.folder / f"{new_id('pkg')}.zip", files)
        version = make_version(scan(package).digest, owner_id)
        self.packages[version.id] = package
        return version

    async def fetch(self, version: Version) -> Path:
        self.fetched += 1
        return self.packages[version.id]

    def builder(
        self, spawn: Spawn = spawn_plain, probe_timeout: float = 30.0, describe: Describe = describe_by_import
    ) -> Builder:
        settings = BuildSettings(
            home=self.home,
            environ=self.environ,
            probe_timeout=probe_timeout,
            wheels=self.wheels,
        )
        return Builder(settings, fetch_package=self.fetch, describe=describe, machine=Machine(8 * 10**9), spawn=spawn)


class Log:
    """Keeps what a build says."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.steps: list[tuple[int, int, str]] = []

    def __call__(self, stream: str, lines: list[str]) -> None:
        self.lines += [f"{stream}: {line}" for line in lines]

    def step(self, current: int, total: int, message: str) -> None:
        self.steps.append((current, total, message))

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


class Sink:
    """Takes the events of one call; ``outcome`` is waited for."""

    def __init__(self) -> None:
        self.events: list[ExecutorEvent] = []
        self._outcome: asyncio.Future[ExecutorEvent] = asyncio.get_running_loop().create_future()
        self._waiting: list[tuple[str, asyncio.Event]] = []

    def __call__(self, event: ExecutorEvent) -> None:
        assert not self._outcome.done(), f"{event} came after the outcome"
        self.events.append(event)
        if isinstance(event, Finished | Lost | Returned):
            self._outcome.set_result(event)
        for message, reached in self._waiting:
            if isinstance(event, Progressed) and event.message == message:
                reached.set()

    async def outcome(self) -> ExecutorEvent:
        return await asyncio.wait_for(asyncio.shield(self._outcome), 60)

    async def step(self, message: str) -> None:
        """Wait until the build says that it is at *message*."""
        reached = asyncio.Event()
        self._waiting.append((message, reached))
        if any(isinstance(event, Progressed) and event.message == message for event in self.events):
            return
        await asyncio.wait_for(reached.wait(), 60)

    @property
    def log(self) -> str:
        return "\n".join(line for event in self.events if isinstance(event, Logged) for line in event.lines)


def build_call(version: Version) -> Call:
    task = Task(
        id=new_id("task"),
        kind="build",
        owner_id=version.owner_id,
        user_id="usr_1",
        root_id="",
        status=TaskStatus.SCHEDULED,
        lane="build",
        function="build",
        input="{}",
        created_at=0,
        updated_at=0,
    )
    return Call(replace(task, root_id=task.id), 1, version, {})


class Shop:
    """An executor of builds and what it stored."""

    def __init__(self, builder: Builder, **options: Any) -> None:
        self.stored: list[Version] = []
        self.executor = BuildExecutor(builder, self._finish, **options)

    async def _finish(self, version: Version) -> None:
        self.stored.append(version)

    def start(self, version: Version) -> tuple[Call, Sink]:
        call, sink = build_call(version), Sink()
        self.executor.start(call, sink)
        return call, sink

    async def build(self, version: Version) -> tuple[ExecutorEvent, Sink]:
        _, sink = self.start(version)
        return await sink.outcome(), sink
