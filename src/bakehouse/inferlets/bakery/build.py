"""Build a program: check, stage, look into the cache, componentize, put the result in place."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bakehouse.inferlets.bakery.cache import Cache, copy_all, digest_of, place
from bakehouse.inferlets.bakery.component import componentize
from bakehouse.inferlets.bakery.problems import BadProject, Problem
from bakehouse.inferlets.bakery.project import Project, read_project
from bakehouse.inferlets.bakery.requirements import install
from bakehouse.inferlets.bakery.sdk import find_sdk
from bakehouse.inferlets.bakery.selection import Selection, check_outside, select
from bakehouse.inferlets.manifest import Manifest

_APP = """\
from pathlib import Path

from inferlet._entry import Run, bake

bake(Path(__file__).parent)
"""


@dataclass(frozen=True, slots=True)
class Built:
    """A component in the file *path*, of *size* bytes. *digest* is the hash of all that went in, not of the file."""

    path: Path
    manifest: Manifest
    manifest_text: str
    digest: str
    size: int
    seconds: float
    cached: bool
    files: tuple[str, ...]


def build(source: Path, out: Path, *, cache: Path, say: Callable[[str], None] = lambda text: None) -> Built:
    """Build the project in the folder (or around the file) *source* into the file *out*. Takes seconds; blocks.

    *cache* is a folder for what was built before. *say* gets a line for every step. Raises `BadProject` for what the
    user can put right, `BuildFailed` otherwise; *out* is then as it was.
    """
    began = time.monotonic()
    project = read_project(source)
    selection = select(project)
    _check_out(out)
    with tempfile.TemporaryDirectory(prefix="bakery-") as temporary:
        staged = Path(temporary) / "staged"
        plan = _stage(project, selection, staged, say)
        digest = digest_of(staged, plan)
        kept = Cache(cache)
        built = kept.find(digest)
        cached = built is not None
        if built is None:
            say("building the component")
            built = Path(temporary) / "out.wasm"
            componentize(staged, built)
            kept.keep(digest, built)
        place(built, out)
    return Built(
        path=out,
        manifest=project.manifest,
        manifest_text=project.manifest_text,
        digest=digest,
        size=out.stat().st_size,
        seconds=time.monotonic() - began,
        cached=cached,
        files=tuple(selection.files),
    )


def _check_out(out: Path) -> None:
    if out.is_dir():
        raise BadProject([Problem(str(out), None, "is a folder; name the file to write, such as hello.wasm")])
    out.parent.mkdir(parents=True, exist_ok=True)


def _stage(project: Project, selection: Selection, staged: Path, say: Callable[[str], None]) -> str:
    """Put together what the component is made of; the plan that `inferlet._entry` reads."""
    sdk = find_sdk()
    app = staged / "app"
    copy_all(selection.files, app / "program")
    copy_all(sdk.files(), staged / "sdk")
    copy_all(sdk.worlds(), staged / "wit")
    if project.requirements:
        say(f"installing {len(project.requirements)} dependencies")
    check_outside(selection, install(project, app / "site"))
    plan = {"entry": _inside(project, selection), "imports": selection.imports, "optional": selection.optional}
    text = json.dumps(plan, sort_keys=True)
    (app / "plan.json").write_text(text, encoding="utf-8")
    (app / "bakery_program.py").write_text(_APP, encoding="utf-8")
    return text


def _inside(project: Project, selection: Selection) -> str:
    entry = project.folder / project.entry
    return next(inside for inside, path in selection.files.items() if path == entry)
