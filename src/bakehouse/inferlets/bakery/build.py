"""Build a program: check, stage, look into the cache, componentize, put the result in place."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bakehouse.inferlets.bakery.cache import Cache, digest_of, place, write_all
from bakehouse.inferlets.bakery.component import componentize
from bakehouse.inferlets.bakery.problems import BadProject, Problem
from bakehouse.inferlets.bakery.project import Project, read_project
from bakehouse.inferlets.bakery.requirements import install
from bakehouse.inferlets.bakery.sdk import find_sdk
from bakehouse.inferlets.bakery.selection import Selection, check_outside, select
from bakehouse.inferlets.bakery.shared import MODULES, is_small, payload_of
from bakehouse.inferlets.manifest import Manifest
from bakehouse.inferlets.payload import join

_APP = """\
from pathlib import Path
from typing import Any

from inferlet._entry import Run, bake

bake(Path(__file__).parent)
"""


@dataclass(frozen=True, slots=True)
class Built:
    """A component in the file *path*, of *size* bytes. *digest* is the hash of all that went in, not of the file.

    *shared* says that other programs have the same component; then its machine code is theirs too.
    """

    path: Path
    manifest: Manifest
    manifest_text: str
    digest: str
    size: int
    seconds: float
    cached: bool
    shared: bool
    files: tuple[str, ...]


def build(
    source: Path,
    out: Path,
    *,
    cache: Path,
    compiled: Path | None = None,
    lent: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Built:
    """Build the project in the folder (or around the file) *source* into the file *out*. Takes seconds; blocks.

    *cache* is a folder for what was built before, *compiled* one for machine code (a folder in *cache* if None), which
    a `Sandbox` may share; *lent* is somebody else's cache, which is only read. *say* gets a line for every step. Raises
    `BadProject` for what the user can put right, `BuildFailed` otherwise; *out* is then as it was.
    """
    began = time.monotonic()
    project = read_project(source)
    selection = select(project)
    _check_out(out)
    with tempfile.TemporaryDirectory(prefix="bakery-") as temporary:
        work = _Work(project, selection, Path(temporary), cache, lent, say)
        work.compiled = compiled or cache / "compiled"
        place(work.run(), out)
    return Built(
        path=out,
        manifest=project.manifest,
        manifest_text=project.manifest_text,
        digest=work.digest,
        size=out.stat().st_size,
        seconds=time.monotonic() - began,
        cached=work.cached,
        shared=work.shared,
        files=tuple(selection.files),
    )


def check(source: Path) -> Manifest:
    """Look at a project without building it; its manifest. Dependencies are left out. Raises `BadProject`."""
    project = read_project(source)
    selection = select(project)
    if not project.requirements:
        check_outside(selection, frozenset())
    return project.manifest


def _check_out(out: Path) -> None:
    if out.is_dir():
        raise BadProject([Problem(str(out), None, "is a folder; name the file to write, such as hello.wasm")])
    out.parent.mkdir(parents=True, exist_ok=True)


class _Work:
    """One build, in the folder *temporary*."""

    def __init__(
        self,
        project: Project,
        selection: Selection,
        temporary: Path,
        cache: Path,
        lent: Path | None,
        say: Callable[[str], None],
    ) -> None:
        self._project, self._selection, self._temporary, self._say = project, selection, temporary, say
        self._components = Cache(cache / "components", ".wasm", kept=16, lent=lent and lent / "components")
        self._payloads = Cache(cache / "payloads", ".payload", kept=1024, lent=lent and lent / "payloads")
        self.compiled = cache / "compiled"
        entry = project.folder / project.entry
        self._entry = next(inside for inside, path in selection.files.items() if path == entry)
        self._sdk = find_sdk()
        self.digest = ""
        self.cached = False
        self.shared = False

    def run(self) -> bytes:
        """The program, as the content of its file."""
        self.shared = not self._project.requirements and is_small(self._selection)
        return self._shared() if self.shared else self._own()

    def _shared(self) -> bytes:
        check_outside(self._selection, frozenset())
        base = self._temporary / "base"
        self._stage(base, {"entry": None, "imports": MODULES, "optional": []})
        what = "building the component that programs share; this is done once, and takes a while"
        digest, component = self._component(base, what)
        own = self._temporary / "own"
        write_all(self._selection.files, own)
        self.digest = digest_of(own, json.dumps([digest, self._entry]))
        payload = self._payloads.find(self.digest)
        self.cached = payload is not None
        if payload is None:
            payload = payload_of(component, self._entry, self._selection, self.compiled)
            self._payloads.keep(self.digest, payload)
        return join(component, payload)

    def _own(self) -> bytes:
        staged = self._temporary / "own"
        write_all(self._selection.files, staged / "app" / "program")
        if self._project.requirements:
            self._say("installing dependencies")
        check_outside(self._selection, install(self._project, staged / "app" / "site"))
        imports, optional = self._selection.imports, self._selection.optional
        self._stage(staged, {"entry": self._entry, "imports": imports, "optional": sorted({*optional, *MODULES})})
        self.digest, component = self._component(staged, "building a component for this program")
        return component

    def _stage(self, staged: Path, plan: dict[str, Any]) -> None:
        """Put the SDK, the world and the plan beside what is there."""
        write_all(self._sdk.package, staged / "sdk")
        write_all(self._sdk.world, staged / "wit")
        app = {"plan.json": json.dumps(plan, sort_keys=True), "bakery_program.py": _APP}
        write_all({name: text.encode() for name, text in app.items()}, staged / "app")

    def _component(self, staged: Path, what: str) -> tuple[str, bytes]:
        """The hash of what is staged, and the component that it becomes."""
        digest = digest_of(staged, "")
        found = self._components.find(digest)
        self.cached = found is not None
        if found is None:
            self._say(what)
            with self._components.making(digest):
                # Another process may have made it meanwhile.
                found = self._components.find(digest) or self._make(staged, digest)
        return digest, found

    def _make(self, staged: Path, digest: str) -> bytes:
        built = self._temporary / "component.wasm"
        componentize(staged, built)
        content = built.read_bytes()
        self._components.keep(digest, content)
        return content
