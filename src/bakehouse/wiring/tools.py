"""Tools of a build under the isolation of apps: a package's set-up code is code of strangers too."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from bakehouse.build.process import Spawn, spawn_plain
from bakehouse.core.ids import new_id
from bakehouse.launch.base import LaunchSettings
from bakehouse.launch.isolate import Places, command, make_plan


def isolated_spawn(settings: LaunchSettings) -> Spawn:
    """How builds start their tools here: with all the isolation that apps have, or without when it is off."""
    if settings.isolation == "off":
        return spawn_plain

    async def spawn(
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        writable: Sequence[Path],
        readable: Sequence[Path],
    ) -> asyncio.subprocess.Process:
        # Below the build's own temporary folder, which goes when the build ends.
        places = await asyncio.to_thread(Places.below, Path(env["TMPDIR"]) / new_id("tool"))
        plan = make_plan(
            argv,
            home=settings.home,
            places=places,
            readable=readable,
            writable=writable,
            limits=settings.limits,
            isolation=settings.isolation,
        )
        # Each folder is a mount of its own inside, and links do not cross mounts.
        inside = {**env, "UV_LINK_MODE": "copy"}
        return await spawn_plain(command({**plan, "cwd": str(cwd)}), env=inside, cwd=cwd, writable=(), readable=())

    return spawn
