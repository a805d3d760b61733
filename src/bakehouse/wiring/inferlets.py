"""Inferlets as apps: a package with a ``Pie.toml`` becomes a version whose program is installed at the node."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from bakehouse.build.builder import Builder, Step
from bakehouse.build.environments import build_environ
from bakehouse.build.process import BuildFailed, Log, Spawn, run_tool
from bakehouse.build.trees import remove_tree
from bakehouse.build.unpack import Contents, bad_package, manifest_of, scan
from bakehouse.core.app import INFERLET, Function, Manifest, Version
from bakehouse.core.errors import Invalid, NotFound
from bakehouse.core.refs import RESERVED_NAMES, check_name
from bakehouse.inferlets import manifest as pie
from bakehouse.inferlets.errors import BadProgram, InferletError
from bakehouse.inferlets.remote import HostLost
from bakehouse.llm.base import InferletSettings, Node
from bakehouse.settings import Settings
from bakehouse.wiring.bake import PROBLEM
from bakehouse.wiring.chosen import FOLDER, instance_limits, owner_limits

_BUILD_SECONDS = 600.0
_NODES = 3
"""So many nodes may die of one build's installation, or beside it."""
_OUTPUT: dict[str, object] = {"type": "object"}
"""The JSON object that a program returned, or its result under ``result``."""


def read_package(package: Path, *, inferlets: bool) -> tuple[Manifest, str, list[str]]:
    """The manifest of an app or an inferlet, the digest of its content, warnings. Blocks.

    Raises Invalid, TooLarge; an inferlet is refused where the server runs none.
    """
    contents = scan(package)
    if contents.inferlet is None:
        return manifest_of(contents)
    if contents.manifest is not None:
        raise bad_package(f"it has both inf.yml and {pie.FILENAME}; one of them says what it is")
    if not inferlets:
        raise bad_package(
            "this server runs no inferlets: its operator can record a model with `bakehouse models add`, "
            'or set `inferlets = "on"`, and start it again'
        )
    return _manifest(contents), contents.digest, []


def _manifest(contents: Contents) -> Manifest:
    said = _parse(_text(contents.inferlet or b""))
    try:
        check_name(said.name, "name")
    except Invalid as wrong:
        raise _bad(f"package.name: {wrong.detail}", "package/name") from None
    if said.name in RESERVED_NAMES:
        raise _bad(f"package.name: {said.name!r} is a fixed word of the API; choose another name", "package/name")
    told = {"authors": list(said.authors), "repository": said.repository, "keywords": list(said.keywords)}
    return Manifest(
        name=said.name,
        description=said.description,
        category=INFERLET,
        kernel=INFERLET,
        label=str(said.version),
        metadata={name: value for name, value in told.items() if value},
    )


def _parse(text: str) -> pie.Manifest:
    try:
        return pie.Manifest.parse(text)
    except BadProgram as wrong:
        raise _bad(wrong.detail, (wrong.field or "").replace(".", "/")) from None


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise _bad("is not UTF-8 text", "") from None


def _bad(message: str, path: str) -> Invalid:
    where = f"/{pie.FILENAME}/{path}".rstrip("/")
    return Invalid(message, code="invalid_manifest", fields=[{"path": where, "message": message}])


class Builds:
    """Builds apps with the one and inferlets with the other."""

    def __init__(self, apps: Builder, inferlets: InferletBuilder) -> None:
        self._apps, self._inferlets = apps, inferlets

    def sweep(self) -> None:
        """See `Builder.sweep`."""
        self._apps.sweep()

    async def build(self, version: Version, log: Log, step: Step) -> Version:
        """See `Builder.build`."""
        builder = self._inferlets if version.kind == INFERLET else self._apps
        return await builder.build(version, log, step)


class InferletBuilder:
    """Builds programs and installs them at the node, for the owner of the app."""

    def __init__(
        self, builder: Builder, node: Node | None, home: Path, spawn: Spawn, environ: Mapping[str, str]
    ) -> None:
        self._builder, self._node, self._spawn = builder, node, spawn
        self._cache, self._temp = home / "cache" / "bakery", home / "tmp" / "builds"
        # What `bakery build` made here. It reads nothing of ours in turn: users' builds may write to our cache.
        self._lent = home / FOLDER / "bakery"
        self._uv_cache = home / "cache" / "uv"
        self._environ = build_environ(environ)

    async def build(self, version: Version, log: Log, step: Step) -> Version:
        """*version* as ``ready``. Raises BuildFailed, Invalid."""
        step(0, 3, "unpacking")
        try:
            app_dir = await self._builder.unpack(version, log)
            text = _text((app_dir / pie.FILENAME).read_bytes())
            step(1, 3, "building the program")
            digest = await self._make(version, app_dir, text, log, step)
        finally:
            # Nothing runs from it: the program is the node's, and the package can be unpacked again.
            await asyncio.shield(asyncio.to_thread(self._builder.discard, version.id))
        step(3, 3, "ready")
        said = _parse(text)
        function = Function("run", said.description, said.input_schema(), dict(_OUTPUT))
        return replace(
            version, status="ready", functions=(function,), default_function="run", env_key=digest, error=None
        )

    async def prepare(self, version: Version) -> None:
        """Install the program of a ready *version* again, where the node has lost it. Raises as `build` does."""
        try:
            await self.build(version, lambda stream, lines: None, lambda current, total, message: None)
        except NotFound as error:
            raise NotFound(f"{version.manifest.name}@{version.label} was deleted before this task began") from error

    async def _make(self, version: Version, app_dir: Path, text: str, log: Log, step: Step) -> str:
        self._temp.mkdir(parents=True, exist_ok=True)
        temp = Path(tempfile.mkdtemp(dir=self._temp))
        try:
            wasm = _prebuilt(app_dir)
            if wasm is None:
                wasm = temp / "out" / "program.wasm"
                await self._bake(app_dir, wasm, temp, log)
            else:
                log("system", [f"{wasm.name} is taken as it is"])
            step(2, 3, "compiling the program")
            return await self._install(version, text, wasm)
        finally:
            await asyncio.shield(asyncio.to_thread(remove_tree, temp))

    async def _bake(self, app_dir: Path, wasm: Path, temp: Path, log: Log) -> None:
        # The isolation knows places, not links to them, and wants those that are there.
        cache, lent = self._cache.resolve(), self._lent.resolve()
        for folder in (wasm.parent, cache, lent, self._uv_cache):
            folder.mkdir(parents=True, exist_ok=True)
        env = {
            **self._environ,
            "HOME": str(temp),
            "TMPDIR": str(temp),
            "UV_CACHE_DIR": str(self._uv_cache),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        process = await self._spawn(
            [sys.executable, "-m", "bakehouse.wiring.bake", str(app_dir), str(wasm), str(cache), str(lent)],
            env=env,
            cwd=temp,
            writable=[temp, cache, self._uv_cache],
            readable=[app_dir, lent, *_our_code()],
        )
        async with asyncio.timeout(_BUILD_SECONDS):
            code, last = await run_tool(process, log)
        if code:
            problems = [line.removeprefix(PROBLEM) for line in last if line.startswith(PROBLEM)]
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            told = problems[0] + more if problems else f"the build tool ended with status {code}"
            raise BuildFailed(told, "" if problems else "\n".join(last))

    async def _install(self, version: Version, text: str, wasm: Path) -> str:
        if self._node is None:
            raise BuildFailed("this server runs no inferlets")
        for attempt in range(_NODES):
            try:
                host = await self._node.host()
                # By force: which content a version has was decided when it was accepted.
                return str((await host.install(version.owner_id, text, wasm, force=True))["digest"])
            except HostLost as error:
                if self._node.down or attempt == _NODES - 1:
                    raise BuildFailed(error.detail) from error
            except InferletError as error:
                raise BuildFailed(error.detail) from error
        raise AssertionError("unreachable")


def _prebuilt(app_dir: Path) -> Path | None:
    """The program of a package that brings it ready-made: its only ``.wasm``, where it has no Python."""
    found = sorted(app_dir.glob("*.wasm"))
    if not found or any(app_dir.glob("*.py")):
        return None
    if len(found) > 1:
        raise bad_package(f"it has {len(found)} .wasm files at its top; which one is the program?")
    return found[0]


def _our_code() -> list[Path]:
    """Where the interpreter of this server and what it imports lie."""
    places = {Path(sys.prefix), Path(sys.base_prefix)}
    for name in ("bakehouse", "inferlet"):
        spec = find_spec(name)
        if spec is not None and spec.origin is not None:
            places.add(Path(spec.origin).parents[1])
            # An editable install of the SDK has its WIT files beside its sources.
            if name == "inferlet":
                places.add(Path(spec.origin).parents[2])
    return sorted(path for path in places if os.path.isdir(path))  # noqa: PTH112


def inferlet_settings(settings: Settings) -> InferletSettings:
    """What the executor is told of the operator's choices."""
    limits, owner = instance_limits(settings), owner_limits(settings)
    per_owner = min(owner.instances, max(1, owner.memory // limits.memory))
    messages, files = settings.inferlet_messages, settings.inferlet_files
    return InferletSettings(settings.inferlet_instances, per_owner, limits, messages, files)


_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"%PDF-", "application/pdf"),
    (b"PK\x03\x04", "application/zip"),
)


def guess_type(data: bytes) -> str:
    """The media type of a file that came without a name: by its first bytes, else text where it is UTF-8."""
    for magic, kind in _MAGIC:
        if data.startswith(magic):
            return kind
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return "application/octet-stream"
    return "text/plain; charset=utf-8"
