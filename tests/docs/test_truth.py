"""What the documentation says of the code is what the code says of itself."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import get_args

import inferlet
import inferlet.errors
import pytest
import typer
from inferlet.generation import Options

import bakehouse
from bakehouse.build.manifest import _InfYml
from bakehouse.cli.app import app as command_line
from bakehouse.cli.failures import Exit
from bakehouse.cli.pie.app import app as pie_command_line
from bakehouse.core import errors
from bakehouse.core.app import Manifest
from bakehouse.core.errors import BakehouseError
from bakehouse.core.task import TaskStatus
from bakehouse.inferlets.manifest import ParameterType
from bakehouse.settings import Settings, load_settings
from bakehouse.settings.table import with_table
from tests.docs.pages import PAGES, ROOT, Block, blocks, prose

TOP = ("src/", "docs/", "tests/", "examples/", "benchmarks/", "sdk/")
OPERATIONS = ROOT / "docs/operations.md"


def _named_paths(page: Path) -> set[str]:
    text = page.read_text(encoding="utf-8")
    ticked = {name for name in re.findall(r"`([\w./-]+)`", text) if name.startswith(TOP)}
    linked = {
        str((page.parent / target).resolve().relative_to(ROOT))
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", prose(page))
        if "://" not in target
    }
    return ticked | linked


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_path_that_is_named_exists(page: Path) -> None:
    assert sorted(name for name in _named_paths(page) if not (ROOT / name).exists()) == []


def test_anchors_of_links_exist() -> None:
    missing = []
    for page in PAGES:
        for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)]+)\)", prose(page)):
            where = (page.parent / target) if target else page
            titles = re.findall(r"^#+ (.+)$", where.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            if anchor not in slugs:
                missing.append(f"{page.name}: {target}#{anchor}")
    assert missing == []


def test_the_pages_on_inferlets_name_each_other_at_the_top() -> None:
    """Whoever comes in by a search sees which page to read when."""
    pages = [page for page in PAGES if page.name == "bakery.md" or page.name.startswith("inferlet")]
    assert len(pages) == 7
    for page in pages:
        top = page.read_text(encoding="utf-8").partition("\n## ")[0]
        named = set(re.findall(r"\]\(([\w-]+\.md)\)", top))
        assert named >= {other.name for other in pages} - {page.name}, page.name


def test_the_table_of_settings_is_the_code() -> None:
    page = OPERATIONS.read_text(encoding="utf-8")
    assert page == with_table(page), "run: python -m bakehouse.settings docs/operations.md"


def _toml_blocks() -> list[Block]:
    """Those that a reader puts into a file of another name are not settings."""
    found = [block for page in PAGES for block in blocks(page) if block.language == "toml"]
    return [block for block in found if "file" not in block.options]


@pytest.mark.parametrize("block", _toml_blocks(), ids=lambda block: block.where)
def test_settings_files_that_are_shown_load(block: Block, tmp_path: Path) -> None:
    (tmp_path / "bakehouse.toml").write_text(block.body)
    assert load_settings({}, environ={}, directory=tmp_path) != Settings()


def test_the_table_of_statuses_is_the_code() -> None:
    page = (ROOT / "docs/statuses.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", page, re.MULTILINE)
    assert [(int(number), name) for number, name in rows] == [(int(s), s.text) for s in TaskStatus]


def test_the_table_of_errors_is_the_code() -> None:
    page = (ROOT / "docs/http.md").read_text(encoding="utf-8")
    rows = {(int(status), code) for status, code in re.findall(r"^\| (\d{3}) \| `(\w+)` \|", page, re.MULTILINE)}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, BakehouseError)]
    assert {(kind.status, kind.code) for kind in kinds} <= rows


def test_the_table_of_manifest_keys_is_the_code() -> None:
    part = (ROOT / "docs/apps.md").read_text(encoding="utf-8").partition("## inf.yml")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", part, re.MULTILINE)
    assert {name for name, _ in rows} == set(_InfYml.model_fields)
    shown = {name: default.strip("` ") for name, default in rows}
    told = Manifest(name="x")
    for name in ("category", "kernel", "concurrency", "retries", "shared", "visibility"):
        assert shown[name] == str(getattr(told, name)).lower(), name


def test_the_page_of_the_inferlet_sdk_names_all_of_it() -> None:
    page = (ROOT / "docs/inferlet-sdk.md").read_text(encoding="utf-8")
    words = set(re.findall(r"[a-z_]+", page, re.IGNORECASE))
    public = {*inferlet.__all__, *Options.__annotations__, *get_args(ParameterType)}
    for module in (inferlet.mcp, inferlet.messaging, inferlet.runtime, inferlet.session, inferlet.zo):
        public |= {name for name, value in vars(module).items() if _is_of(value, module)}
    public |= {name for name, value in vars(inferlet.errors).items() if _is_of(value, inferlet.errors)}
    public |= {name for name in vars(inferlet.mcp.McpSession) if not name.startswith("_")}
    assert public - words == {"Connection", "McpSession", "NotConnected", "Subscription", "close", "error_of"}


def _is_of(value: object, module: ModuleType) -> bool:
    """Whether *value* is a class or a function that *module* defines for others."""
    return getattr(value, "__module__", "") == module.__name__ and not getattr(value, "__name__", "_").startswith("_")


def _words_in_code() -> set[str]:
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "src/bakehouse").rglob("*.py"))
    return {word for text in sources for word in re.findall(r"\"?\baction\"?(?:=|: )\"(\w+)\"", text)}


def test_the_list_of_log_actions_is_the_code() -> None:
    part = OPERATIONS.read_text(encoding="utf-8").partition("## Logs")[2].partition("\n## ")[0]
    listed = set(re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE))
    assert listed - {"library"} == _words_in_code()


def test_the_list_of_metrics_is_the_code() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src/bakehouse").rglob("*.py"))
    counted = set(re.findall(r'"(bakehouse_(?:http|task|tasks|store|streams)_\w+)"', sources))
    watched = {f"bakehouse_{name}" for name in re.findall(r'\.watch\(\s*"(\w+)"', sources)}
    part = OPERATIONS.read_text(encoding="utf-8").partition("## Metrics")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(bakehouse_\w+)` \|", part, re.MULTILINE)) == counted | watched


def _commands(app: typer.Typer, prefix: str) -> set[str]:
    found = {
        f"{prefix} {command.name or command.callback.__name__}"
        for command in app.registered_commands
        if command.callback
    }
    for group in app.registered_groups:
        assert group.typer_instance is not None
        found |= _commands(group.typer_instance, f"{prefix} {group.name}")
    return found


def test_the_list_of_commands_is_the_code() -> None:
    page = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(bakehouse [a-z ]+)` \|", page, re.MULTILINE)) == _commands(command_line, "bakehouse")
    statuses = {int(number) for number in re.findall(r"^\| (\d+) \| ", page, re.MULTILINE)}
    assert statuses == {int(status) for status in Exit}


def test_the_list_of_pie_commands_is_the_code() -> None:
    page = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(pie [a-z ]+)` \|", page, re.MULTILINE)) == _commands(pie_command_line, "pie")


def test_the_changelog_begins_with_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\S+)", changelog, re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert newest is not None
    assert newest[1] == bakehouse.__version__ == project["version"]


def test_make_verbs_that_are_named_exist() -> None:
    verbs = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {verb for page in PAGES for verb in re.findall(r"`make ([a-z-]+)`", page.read_text(encoding="utf-8"))}
    assert named - verbs == set()


def test_decisions_are_numbered_without_gaps() -> None:
    numbers = sorted(int(path.name[:4]) for path in (ROOT / "docs/decisions").glob("[0-9]*.md"))
    assert numbers == list(range(1, len(numbers) + 1))
