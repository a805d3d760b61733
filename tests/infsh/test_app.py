"""`BaseApp` without a host, and the `function` decorator."""

from __future__ import annotations

import ast
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import infsh
import pytest
from infsh import BaseApp, BaseAppInput, BaseAppOutput, ImageMeta, OutputMeta, TextMeta, function


class In(BaseAppInput):
    n: int = 1


class Out(BaseAppOutput):
    n: int


class App(BaseApp):
    field: int = 3

    async def setup(self) -> None:
        self.model = object()
        self._private = 1

    async def run(self, input: In) -> Out:
        self.logger.info("n is %s", input.n)
        self.report_progress(1, 2, "half")
        (self.temp_dir / "x").write_text("scratch")
        return Out(n=input.n + self.field, output_meta=OutputMeta(outputs=[TextMeta(tokens=5), ImageMeta(width=2)]))


async def test_an_app_can_be_used_as_a_plain_object(caplog: pytest.LogCaptureFixture) -> None:
    app = App()
    with caplog.at_level(logging.INFO):
        await app.setup()
        output = await app.run(In(n=2))
    assert output.n == 5
    assert output.model_dump()["output_meta"]["outputs"][0]["tokens"] == 5
    assert caplog.messages == ["n is 2", "progress 1/2 half"]
    assert (app.context.task_id, app.context.cancel_requested) == (None, False)
    assert app.temp_dir == app.temp_dir, "one folder per instance"
    assert App().temp_dir != app.temp_dir
    await app.unload()  # type: ignore[attr-defined]


def test_an_app_may_replace_what_the_host_gives() -> None:
    app = App()
    mine = logging.getLogger("mine")
    app.logger = mine  # type: ignore[misc]
    assert app.logger is mine


SLACK = {"slug": "slack", "capabilities": ["slack.read"]}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"slack": {"capabilities": ["slack.read"]}, "github": None}, [SLACK, {"slug": "github"}]),
        (["slack.read", "github"], [SLACK, {"slug": "github"}]),
        ([{"slug": "x", "optional": True}], [{"slug": "x", "optional": True}]),
    ],
)
def test_credentials_are_normalised(given: Any, kept: Any) -> None:
    @function(credentials=given)
    def target() -> None: ...

    assert target.__inferencesh_function__ == {"credentials": kept}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"credentials": "slack"}, TypeError),
        ({"credentials": [3]}, TypeError),
        ({"credentials": [{"slug": "a", "colour": 1}]}, ValueError),
        ({"credentials": [{"scopes": []}]}, ValueError),
        ({"credentials": [{"slug": "a", "scopes": "all"}]}, TypeError),
        ({"annotations": {"readOnly": True}}, ValueError),
        ({"annotations": {"readOnlyHint": "yes"}}, TypeError),
    ],
)
def test_wrong_metadata_is_refused_where_it_is_written(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        function(**options)


def test_public_names() -> None:
    assert all(hasattr(infsh, name) for name in infsh.__all__)
    assert infsh.__all__ == sorted(infsh.__all__)


def test_importing_the_library_needs_no_command_line_packages() -> None:
    script = "import sys, infsh; print([m for m in ('typer', 'yaml', 'infsh._commands') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_library_is_written_for_old_pythons() -> None:
    for path in Path(infsh.__file__).parent.glob("*.py"):
        ast.parse(path.read_text(), feature_version=(3, 9))
