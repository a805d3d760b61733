"""Our own wheels of the app SDK, which every app's environment gets.

They lie beside this file: put there by ``make install`` in a checkout, and by the wheel of the server elsewhere.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import uv

from bakehouse.build.process import BuildFailed, Log, run_tool, spawn_plain
from bakehouse.build.trees import locked

FOLDER = Path(__file__).parent / "wheels"
SOURCES = Path(__file__).parents[3] / "sdk"
"""Where the SDKs' sources lie in a checkout; an installed server has none."""

_DISTS = {"infsh": "bakehouse_infsh", "inferencesh": "bakehouse_inferencesh"}


@dataclass(frozen=True, slots=True)
class Wheels:
    """The two wheels, and one hash over both."""

    infsh: Path
    inferencesh: Path
    digest: str


async def our_wheels(environ: Mapping[str, str], log: Log, folder: Path = FOLDER, sources: Path = SOURCES) -> Wheels:
    """The wheels in *folder*; missing ones are built from *sources* where there are any, else BuildFailed."""
    missing = [name for name in _DISTS if _find(folder, name) is None]
    if missing:
        await _build(missing, environ, log, folder, sources)
    infsh, inferencesh = _find(folder, "infsh"), _find(folder, "inferencesh")
    if infsh is None or inferencesh is None:
        raise BuildFailed(f"uv built no wheel of the SDK into {folder}")
    content = await asyncio.to_thread(lambda: infsh.read_bytes() + inferencesh.read_bytes())
    return Wheels(infsh, inferencesh, hashlib.sha256(content).hexdigest())


def _find(folder: Path, name: str) -> Path | None:
    found = sorted(folder.glob(f"{_DISTS[name]}-*.whl"))
    return found[-1] if found else None


async def _build(names: list[str], environ: Mapping[str, str], log: Log, folder: Path, sources: Path) -> None:
    absent = [name for name in names if not (sources / name / "pyproject.toml").is_file()]
    if absent:
        raise BuildFailed(
            f"the server's wheels of {', '.join(absent)} are missing; `make install` makes them in a checkout"
        )
    # Two builds of a wheel at once would write the same file.
    async with locked(folder / ".lock", lambda: log("system", ["waiting for another build of our wheels"])):
        for name in names:
            if _find(folder, name) is None:
                await _build_one(name, environ, log, folder, sources)


async def _build_one(name: str, environ: Mapping[str, str], log: Log, folder: Path, sources: Path) -> None:
    log("system", [f"building our wheel of {name}"])
    argv = [uv.find_uv_bin(), "build", "--quiet", "--wheel", str(sources / name), "--out-dir", str(folder)]
    process = await spawn_plain(argv, env=environ, cwd=sources, writable=[folder], readable=[sources])
    code, tail = await run_tool(process, log)
    if code:
        raise BuildFailed(f"the wheel of {name} could not be built", "\n".join(tail))
