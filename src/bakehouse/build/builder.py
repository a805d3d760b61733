"""From a stored package to a version that can run, and from a version to what an instance starts with."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from bakehouse.build.environments import Environments, Recipe, build_environ, find_interpreter
from bakehouse.build.machine import Machine, check_resources
from bakehouse.build.manifest import parse_manifest
from bakehouse.build.process import BuildFailed, Log, Spawn, spawn_plain
from bakehouse.build.trees import remove_tree
from bakehouse.build.unpack import Contents, PackageLimits, bad_package, unpack
from bakehouse.build.wheels import FOLDER, our_wheels
from bakehouse.core.app import Function, Manifest, Version
from bakehouse.core.executor import Failure

_HALF = ".half-"


@dataclass(frozen=True, slots=True)
class Environment:
    """What an instance starts with: the interpreter of its environment and its unpacked, read-only code."""

    python: Path
    app_dir: Path


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """``home`` is the data directory, ``environ`` the server's environment (see ``PASSED_ON``). Times are seconds."""

    home: Path
    environ: Mapping[str, str] = field(default_factory=dict)
    probe_timeout: float = 120.0
    limits: PackageLimits = field(default_factory=PackageLimits)
    wheels: Path = FOLDER


class Describe(Protocol):
    """Loads an app in a child and says what it offers (the ``described`` message, without ``t``).

    Raises an error with a ``failure`` (core's ``Failure``) when the app does not load, TimeoutError when it hangs.
    """

    async def __call__(
        self,
        *,
        app_dir: Path,
        python: Path,
        environ: dict[str, str],
        timeout: float,
        on_log: Callable[[str, str], None],
    ) -> dict[str, Any]: ...


Step = Callable[[int, int, str], None]


class Builder:
    """Builds versions and prepares them for instances. Both may be called as often and as much at once as one likes."""

    def __init__(
        self,
        settings: BuildSettings,
        *,
        fetch_package: Callable[[Version], Awaitable[Path]],
        describe: Describe,
        machine: Machine,
        spawn: Spawn = spawn_plain,
    ) -> None:
        self._settings = settings
        self._fetch_package = fetch_package
        self._describe = describe
        self._machine = machine
        self._environ = build_environ(settings.environ)
        self._versions = settings.home / "versions"
        home = settings.home
        self._environments = Environments(
            home / "envs", home / "cache" / "uv", home / "tmp" / "builds", spawn, self._environ
        )
        self._preparing: dict[str, asyncio.Task[Environment]] = {}

    def sweep(self) -> None:
        """Remove what a crash left half-done. Blocks; called before the first build."""
        self._versions.mkdir(parents=True, exist_ok=True)
        for path in self._versions.glob(f"{_HALF}*"):
            remove_tree(path)
        self._environments.sweep()

    async def build(self, version: Version, log: Log, step: Step) -> Version:
        """*version* as ``ready``. Raises BuildFailed, Invalid or TooLarge with the reason; leaves no half-done code."""
        step(0, 3, "unpacking")
        app_dir = await self.unpack(version, log)
        try:
            manifest = await self._read_manifest(app_dir, log)
            step(1, 3, "building the environment")
            recipe = await self._recipe(version, manifest, app_dir, log)
            python = await self._environments.ensure(recipe, app_dir, log)
            step(2, 3, "reading the app's functions")
            described = await self._probe(manifest, app_dir, python, log)
            built = _ready(version, manifest, recipe.key, described)
        except BaseException:
            await asyncio.shield(asyncio.to_thread(self.discard, version.id))
            raise
        log("system", [f"functions: {', '.join(f.name for f in built.functions)}; default: {built.default_function}"])
        step(3, 3, "ready")
        return built

    async def prepare(self, version: Version) -> Environment:
        """The environment and code of a ready *version*, restored first if they are gone. Raises as ``build`` does."""
        environment = self.prepared(version)
        if environment:
            self.used(version)
            return environment
        running = self._preparing.get(version.id)
        if running is None:
            running = asyncio.create_task(self._restore(version), name=f"prepare {version.id}")
            self._preparing[version.id] = running
            running.add_done_callback(lambda _: self._preparing.pop(version.id, None))
        # One caller that gives up must not take the others' work with it.
        return await asyncio.shield(running)

    def prepared(self, version: Version) -> Environment | None:
        """What ``prepare`` would answer, when it is all there."""
        python = self._environments.python(version.env_key) if version.env_key else None
        app_dir = self._app_dir(version.id)
        return Environment(python, app_dir) if python and app_dir.is_dir() else None

    def discard(self, version_id: str) -> None:
        """Remove the unpacked code of a version. Blocks. The package stays, so ``prepare`` can bring it back."""
        remove_tree(self._versions / version_id)

    def used(self, version: Version) -> None:
        """Note that *version* runs now, so that ``discard_unused`` leaves it alone."""
        if version.env_key:
            self._environments.used(version.env_key)
        with contextlib.suppress(FileNotFoundError):  # another server discards it; prepare brings it back
            os.utime(self._versions / version.id)

    def discard_unused(self, age: float) -> int:
        """Remove code, environments and downloads that nobody used for *age* seconds; how many. Blocks.

        Nothing is lost but time: ``prepare`` brings back what is asked for again.
        """
        before = time.time() - age
        old = [path for path in self._versions.glob("*") if path.stat().st_mtime < before]
        for path in old:
            remove_tree(path)
        return len(old) + self._environments.discard_unused(before)

    async def _restore(self, version: Version) -> Environment:
        def log(stream: str, lines: list[str]) -> None:
            del stream, lines  # nobody reads along: a failure carries its own text

        app_dir = await self.unpack(version, log)
        recipe = await self._recipe(version, version.manifest, app_dir, log)
        # Under the name that the version knows, also where the server's wheels are newer by now.
        python = await self._environments.ensure(recipe, app_dir, log, key=version.env_key)
        return Environment(python, app_dir)

    def _app_dir(self, version_id: str) -> Path:
        return self._versions / version_id / "app"

    async def unpack(self, version: Version, log: Log) -> Path:
        """The read-only code of *version*, unpacked unless it is there. Raises Invalid, TooLarge."""
        target = self._versions / version.id
        if not target.is_dir():
            package = await self._fetch_package(version)
            contents = await asyncio.to_thread(self._unpack_now, package, target, version)
            log(
                "system",
                [f"unpacked {len(contents.files)} files, {contents.size} bytes, digest {contents.digest[:12]}"],
            )
        return target / "app"

    def _unpack_now(self, package: Path, target: Path, version: Version) -> Contents:
        self._versions.mkdir(parents=True, exist_ok=True)
        half = Path(tempfile.mkdtemp(prefix=_HALF, dir=self._versions))
        try:
            contents = unpack(package, half / "app", self._settings.limits)
            if version.digest and contents.digest != version.digest:
                raise bad_package(f"its content has changed (digest {contents.digest}, expected {version.digest})")
            half.chmod(0o755)
            if not target.is_dir():
                half.rename(target)
            return contents
        finally:
            remove_tree(half)

    async def _read_manifest(self, app_dir: Path, log: Log) -> Manifest:
        path = app_dir / "inf.yml"
        if not path.is_file():
            raise bad_package("there is no inf.yml at the top of the package")
        manifest, warnings = parse_manifest(path.read_bytes())
        if warnings:
            log("system", [f"warning: {warning}" for warning in warnings])
        check_resources(manifest.resources, self._machine)
        return manifest

    async def _recipe(self, version: Version, manifest: Manifest, app_dir: Path, log: Log) -> Recipe:
        # Where the operator has interpreters; what a build runs does not see these.
        places = {key: value for key, value in self._settings.environ.items() if key in ("PATH", "HOME")}
        interpreter, python = await find_interpreter(manifest.kernel, {**self._environ, **places})
        wheels = await our_wheels(self._environ, log, self._settings.wheels)
        return Recipe(
            scope=version.owner_id,
            interpreter=interpreter,
            python=python,
            requirements=_text(app_dir / "requirements.txt"),
            overrides=_text(app_dir / "overrides.txt"),
            wheels=wheels,
            digest=version.digest,
        )

    async def _probe(self, manifest: Manifest, app_dir: Path, python: Path, log: Log) -> dict[str, Any]:
        try:
            return await self._describe(
                app_dir=app_dir,
                python=python,
                environ=dict(manifest.env),
                timeout=self._settings.probe_timeout,
                on_log=lambda stream, line: log(stream, [line]),
            )
        except TimeoutError:
            raise BuildFailed(f"the app did not load within {self._settings.probe_timeout:g} s") from None
        except Exception as wrong:
            failure = getattr(wrong, "failure", None)
            if not isinstance(failure, Failure):
                raise
            raise BuildFailed(f"the app does not load: {failure.message}", failure.traceback) from wrong


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig") if path.is_file() else ""
    except UnicodeDecodeError as wrong:
        raise bad_package(f"{path.name} is not UTF-8 text") from wrong


def _ready(version: Version, manifest: Manifest, env_key: str, described: dict[str, Any]) -> Version:
    functions = tuple(_function(entry) for entry in described["functions"])
    if manifest.concurrency > 1 and not described.get("concurrency_ok", False):
        raise BuildFailed(f"inf.yml asks for concurrency {manifest.concurrency}, which needs async functions only")
    return replace(
        version,
        status="ready",
        manifest=manifest,
        label=manifest.label or version.label,
        env_key=env_key,
        functions=functions,
        setup_schema=described.get("setup_schema"),
        default_function=_default(manifest, described.get("default_function"), [f.name for f in functions]),
        error=None,
    )


def _function(entry: dict[str, Any]) -> Function:
    return Function(
        name=entry["name"],
        description=entry.get("description") or "",
        input_schema=entry.get("input_schema") or {},
        output_schema=entry.get("output_schema") or {},
        kind=entry.get("kind") or "run",
        annotations=entry.get("annotations") or {},
        capabilities=tuple(entry.get("capabilities") or ()),
    )


def _default(manifest: Manifest, hinted: str | None, names: list[str]) -> str:
    """inf.yml's choice, else the code's, else ``run``, else the only one."""
    listed = ", ".join(names) or "none"
    if not names:
        raise BuildFailed(
            "the app has no function: write one that takes a BaseAppInput, such as `run(self, input_data)`"
        )
    if manifest.default_function and manifest.default_function not in names:
        raise BuildFailed(
            f"default_function {manifest.default_function!r} of inf.yml is not in the app; it has {listed}"
        )
    for name in (manifest.default_function, hinted, "run"):
        if name in names and name is not None:
            return name
    if len(names) > 1:
        raise BuildFailed(f"inf.yml must name its default_function, since there is no `run`; the app has {listed}")
    return names[0]
