"""Programs of apps that were deleted are removed from the node: at once, or as soon as there is one again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import orjson
import structlog

from bakehouse.core.app import INFERLET, Version
from bakehouse.inferlets.errors import NoSuchProgram
from bakehouse.inferlets.remote import HostLost
from bakehouse.llm.base import Node
from bakehouse.service.apps import Removal

log = structlog.get_logger(__name__)

#: Of an owner, a name and a version: whether an app still has it.
StillThere = Callable[[str, str, str], Awaitable[bool]]


class Removals(Removal):
    """A note for each version lies in *folder* until the node has said that its program is gone."""

    def __init__(
        self,
        folder: Path,
        node: Node,
        still_there: StillThere,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._folder, self._node, self._still_there, self._spawn = folder, node, still_there, spawn
        self._working = self._asked = False
        #: Whether there may be notes to look at.
        self._noted = any(folder.glob("*.json"))
        node.on_change(self.begin)

    async def note(self, versions: Sequence[Version]) -> None:
        """See `Removal`."""
        notes = [_note(version) for version in versions if version.kind == INFERLET and version.env_key]
        await asyncio.to_thread(self._write, notes)
        self._noted = self._noted or bool(notes)

    def _write(self, notes: Sequence[dict[str, str]]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for note in notes:
            path = self._folder / f"{note['id']}.json"
            fresh = path.with_suffix(".new")
            fresh.write_bytes(orjson.dumps(note))
            fresh.replace(path)

    def begin(self) -> None:
        """See `Removal`."""
        if self._noted and self._node.up:
            self._asked = True
            if not self._working:
                self._working = True
                self._spawn(self._run())

    async def _run(self) -> None:
        try:
            while self._asked:
                self._asked = self._noted = False
                try:
                    await self._look()
                except HostLost:
                    self._noted = True  # the node's next start begins again
        except BaseException:
            self._noted = True
            raise
        finally:
            self._working = False

    async def _look(self) -> None:
        for path in sorted(self._folder.glob("*.json")):
            note = orjson.loads(path.read_bytes())
            if await self._still_there(note["owner"], note["name"], note["label"]):
                self._noted = True  # it is just being deleted; or it was deployed again, and will be some day
            else:
                await self._remove(note)
                path.unlink(missing_ok=True)

    async def _remove(self, note: dict[str, str]) -> None:
        host, program = await self._node.host(), f"{note['name']}@{note['label']}"
        installed = {f"{it['name']}@{it['version']}": it["digest"] for it in await host.programs(note["owner"])}
        if installed.get(program) != note["digest"]:
            return  # a client has installed another one in its place
        try:
            await host.remove(note["owner"], program)
        except NoSuchProgram:
            return
        log.info("the program of a deleted app is removed", action="program_removed", program=program)


def _note(version: Version) -> dict[str, str]:
    return {
        "id": version.id,
        "owner": version.owner_id,
        "name": version.manifest.name,
        "label": version.label or "",
        "digest": version.env_key or "",
    }
