"""Environments of apps: virtual environments made by uv, cached by what goes into them, read-only once they are whole.

A virtual environment knows its own path, so it is built where it will stay; a marker file, written last, says that
it is whole. One lock file per environment keeps two builds and two servers from building it at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import uv

from bakehouse.build.process import BuildFailed, Log, Spawn, run_tool
from bakehouse.build.trees import freeze_tree, locked, remove_tree, take_lock
from bakehouse.build.wheels import Wheels

READY = ".ready"

# A line that takes something from the package itself: the text alone does not say what gets installed.
_LOCAL = re.compile(r"^[./]|\bfile:|^-(?!-no-index|-pre|-prefer-binary)(?!.*://)|^[^:]*\.(whl|tar\.gz|zip)\b")

PASSED_ON = (
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL"),
    *("UV_FIND_LINKS", "UV_INDEX_STRATEGY", "UV_OFFLINE", "UV_HTTP_TIMEOUT", "UV_CONCURRENT_DOWNLOADS"),
)
"""Variables of the server that a build may see: how to reach the package index, and nothing else."""


def build_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """What uv gets of the server's *environ*, with the settings that every build has."""
    passed = {key: environ[key] for key in PASSED_ON if key in environ}
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        # The machine's own certificates, as companies put theirs there.
        "UV_SYSTEM_CERTS": "1",
        "UV_NO_CONFIG": "1",
        "UV_PYTHON_DOWNLOADS": "never",
        "UV_NO_PROGRESS": "1",
        "NO_COLOR": "1",
        **passed,
    }


@dataclass(frozen=True, slots=True)
class Recipe:
    """What goes into an environment. ``digest`` is the package's, used where requirements point into the package.

    ``scope`` keeps owners apart: a package's set-up code runs at build time and could leave anything in its
    environment, so only its own owner gets it again.
    """

    scope: str
    interpreter: Path
    python: str
    requirements: str
    overrides: str
    wheels: Wheels
    digest: str

    @property
    def key(self) -> str:
        """The environment's name: 32 hexadecimal digits."""
        requirements, overrides = _lines(self.requirements), _lines(self.overrides)
        parts = [self.scope, self.python, self.wheels.digest, *requirements, "overrides:", *overrides]
        if any(_LOCAL.search(line) for line in [*requirements, *overrides]):
            parts.append(self.digest)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _lines(text: str) -> list[str]:
    bare = (re.sub(r"(^|\s)#.*", "", line).strip() for line in text.splitlines())
    return [line for line in bare if line]


class Environments:
    """The environments below *root*; *cache* holds what uv downloaded, one folder per scope; *temp* is for uv."""

    def __init__(self, root: Path, cache: Path, temp: Path, spawn: Spawn, environ: Mapping[str, str]) -> None:
        self._root = root
        self._temp = temp
        self._cache = cache
        self._spawn = spawn
        self._environ = environ

    def python(self, key: str) -> Path | None:
        """The interpreter of the environment *key*, or None when it is not (wholly) there."""
        path = self._root / key
        return path / "bin" / "python" if (path / READY).is_file() else None

    async def ensure(self, recipe: Recipe, app_dir: Path, log: Log, key: str | None = None) -> Path:
        """The interpreter of the environment *key* (None: the recipe's), built if not there. Raises BuildFailed."""
        key = key or recipe.key
        path = self._root / key
        found = self.python(key)
        if found:
            log("system", ["the environment is cached"])
            return found
        async with locked(self._lock(key), lambda: log("system", ["waiting for a build of the same environment"])):
            found = self.python(key)
            if not found:
                await self._build(recipe, path, app_dir, log)
            return path / "bin" / "python"

    def _lock(self, key: str) -> Path:
        return self._root / f"{key}.lock"

    async def _build(self, recipe: Recipe, path: Path, app_dir: Path, log: Log) -> None:
        began = time.monotonic()
        await asyncio.to_thread(remove_tree, path)
        try:
            self._temp.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self._temp, ignore_cleanup_errors=True) as temp:
                await _Install(self, recipe, path, app_dir, Path(temp), log).run()
            await asyncio.to_thread(_seal, path)
        except BaseException:
            # A cancelled build too: what is half there must not wait for the next start to be removed.
            await asyncio.shield(asyncio.to_thread(remove_tree, path))
            raise
        log("system", [f"environment built in {time.monotonic() - began:.1f} s"])

    async def uv(
        self, argv: Sequence[str], *, recipe: Recipe, path: Path, app_dir: Path, temp: Path, log: Log
    ) -> tuple[int, list[str]]:
        """Run uv with *argv* for the environment at *path*; its exit code and last lines."""
        cache = self._cache / recipe.scope
        cache.mkdir(parents=True, exist_ok=True)
        os.utime(cache)
        uv_bin = uv.find_uv_bin()
        env = {**self._environ, "HOME": str(temp), "TMPDIR": str(temp), "UV_CACHE_DIR": str(cache)}
        certificates = [Path(env[key]) for key in ("SSL_CERT_FILE", "SSL_CERT_DIR") if key in env]
        tools = [Path(uv_bin), recipe.interpreter.parent.parent, recipe.wheels.infsh, recipe.wheels.inferencesh]
        process = await self._spawn(
            [uv_bin, *argv],
            env=env,
            cwd=app_dir,
            writable=[path, cache, temp],
            readable=[app_dir, *tools, *certificates],
        )
        return await run_tool(process, lambda stream, lines: _tell(log, stream, lines))

    def sweep(self) -> None:
        """Remove what a crash left half-built. Blocks. Nobody else may be building in the same temporary folder."""
        remove_tree(self._temp)
        if not self._root.is_dir():
            return
        for path in self._root.iterdir():
            if path.is_dir() and not (path / READY).is_file():
                self.discard(path.name)

    def used(self, key: str) -> None:
        """Note that the environment *key* is used now."""
        with contextlib.suppress(FileNotFoundError):  # it has just been discarded
            os.utime(self._root / key / READY)

    def discard_unused(self, before: float) -> int:
        """Remove environments and downloads last used before *before* (seconds since 1970); how many went. Blocks."""
        old = [ready.parent.name for ready in self._root.glob(f"*/{READY}") if ready.stat().st_mtime < before]
        caches = [cache for cache in self._cache.glob("*") if cache.stat().st_mtime < before]
        for cache in caches:
            remove_tree(cache)
        return len(caches) + sum(self.discard(key) for key in old)

    def discard(self, key: str) -> bool:
        """Remove the environment *key* unless somebody is building it; whether it is gone. Blocks."""
        path = self._root / key
        descriptor = take_lock(self._lock(key))
        if descriptor is None:
            return False
        with open(descriptor, "wb"):  # noqa: PTH123 (closes the lock)
            # First the marker: a removal that is cut short leaves something that is known to be broken.
            if path.is_dir():
                path.chmod(0o755)
                (path / READY).unlink(missing_ok=True)
            remove_tree(path)
        return True


@dataclass(frozen=True, slots=True)
class _Install:
    """One run of uv for one environment."""

    environments: Environments
    recipe: Recipe
    path: Path
    app_dir: Path
    temp: Path
    log: Log

    async def run(self) -> None:
        self.log("system", [f"creating an environment with Python {self.recipe.python}"])
        self.path.mkdir(parents=True)
        await self._uv("uv cannot create an environment", "venv", "--allow-existing", "--no-project", "--quiet")
        await self._pip([str(self.recipe.wheels.infsh)])
        if not any(self.path.glob("lib/python*/site-packages/inferencesh")):
            # The app did not bring the published client, so ours takes that import name.
            await self._pip([str(self.recipe.wheels.infsh), str(self.recipe.wheels.inferencesh)])

    async def _pip(self, wheels: list[str]) -> None:
        named = ["--requirements", "requirements.txt"] if _lines(self.recipe.requirements) else []
        named += ["--overrides", "overrides.txt"] if _lines(self.recipe.overrides) else []
        python = str(self.path / "bin" / "python")
        # The environment is read-only later: without byte code now, every cold start would compile everything again.
        await self._uv(
            "the requirements cannot be installed",
            "pip",
            "install",
            "--compile-bytecode",
            "--python",
            python,
            *named,
            *wheels,
        )

    async def _uv(self, what: str, *argv: str) -> None:
        extra = ["--python", str(self.recipe.interpreter), str(self.path)] if argv[0] == "venv" else []
        code, tail = await self.environments.uv(
            [*argv, *extra], recipe=self.recipe, path=self.path, app_dir=self.app_dir, temp=self.temp, log=self.log
        )
        if code:
            raise BuildFailed(f"{what}: {_reason(tail) or f'uv ended with code {code}'}", "\n".join(tail))


def _reason(tail: list[str]) -> str:
    """The one line of uv's answer that says most."""
    for mark in ("╰─▶", "cause:", "error:", "×"):
        for line in tail:
            if mark in line:
                return line.split(mark, 1)[1].strip()[:300]
    return ""


def _tell(log: Log, stream: str, lines: list[str]) -> None:
    # Where the server keeps environments is nobody's business.
    if told := [line for line in lines if not line.startswith("Using Python ")]:
        log(stream, told)


def _seal(path: Path) -> None:
    (path / READY).write_text("whole\n")
    freeze_tree(path)


async def find_interpreter(kernel: str, environ: Mapping[str, str]) -> tuple[Path, str]:
    """The interpreter for *kernel* (``python``, ``python-3.X``) and its version "3.X"; BuildFailed if there is none.

    *environ* is for uv; its PATH and HOME are where it looks.
    """
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    wanted = kernel.partition("-")[2] or own
    if wanted == own:
        base = Path(sys.base_prefix) / "bin" / f"python{own}"
        return base if base.exists() else Path(sys.executable), own
    if int(wanted.partition(".")[2]) < 9:
        raise BuildFailed(f"kernel {kernel}: apps need Python 3.9 or newer")
    argv = [uv.find_uv_bin(), "python", "find", "--no-project", wanted]
    process = await asyncio.create_subprocess_exec(
        *argv,
        env={"HOME": tempfile.gettempdir(), **environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    answer, _ = await process.communicate()
    if process.returncode:
        raise BuildFailed(f"kernel {kernel}: Python {wanted} is not installed here; this server has {own}")
    return Path(answer.decode().strip()), wanted
