"""What the child tells about an app: functions and schemas, of our SDK and of the published one."""

from __future__ import annotations

from pathlib import Path

import pytest

from bakehouse.apphost import messages
from tests.apphost.child import Children
from tests.interop.environments import published_python

APP = '''
class Shared(BaseAppInput):
    zebra: str
    apple: int = 3
    photo: Optional[File] = None

class Out(BaseAppOutput):
    text: str

class Token(StreamDelta):
    text: str

class AppSetup(BaseAppSetup):
    model: Literal["small", "large"] = "small"

class Base(BaseApp):
    async def inherited(self, input_data: Shared) -> Out: ...

class MyApp(Base):
    async def setup(self, config: AppSetup): ...
    async def run(self, app_input: Shared, metadata: Metadata) -> AsyncGenerator[Union[Token, Out], None]:
        """Reads a photo."""
        yield Out(text="x")
    def stream(self, input: Shared) -> Iterator[Out]: ...
    @function(annotations={"readOnlyHint": True}, credentials=["slack.read"])
    async def state(self) -> Out: ...
    async def untyped_output(self, input: Shared): ...
    async def talk(self, input: Shared, socket): ...
    def helper(self, x: int) -> int: ...
    def _private(self, input: Shared) -> Out: ...
    async def on_cancel(self): ...
'''


def test_describe_lists_functions_and_schemas(apps: Children) -> None:
    child = apps.start(APP, mode="describe")
    described = child.next("described")
    assert child.to_end() == 0
    by_name = {f["name"]: f for f in described["functions"]}
    assert set(by_name) == {"inherited", "run", "stream", "state", "untyped_output"}
    assert (described["class_name"], described["default_function"]) == ("MyApp", "run")
    assert not described["concurrency_ok"], "stream is a plain generator"
    run = by_name["run"]
    assert (run["kind"], run["description"]) == ("run", "Reads a photo.")
    assert list(run["input_schema"]["properties"]) == ["zebra", "apple", "photo"]
    assert run["input_schema"]["properties"]["photo"]["anyOf"][0] == {"type": "string", "format": "file"}
    assert by_name.pop("untyped_output")["output_schema"] == {}
    assert {frozenset(f["output_schema"]["properties"]) for f in by_name.values()} == {
        frozenset({"output_meta", "text"})
    }
    assert by_name["state"]["annotations"] == {"readOnlyHint": True}
    assert by_name["state"]["credentials"] == [{"slug": "slack", "capabilities": ["slack.read"]}]
    assert described["setup_schema"]["properties"]["model"]["enum"] == ["small", "large"]


def test_the_documented_app_is_described(apps: Children) -> None:
    child = apps.start(
        """
class AppInput(BaseAppInput):
    image: str
    mask: str

class AppOutput(BaseAppOutput):
    image: File

class MyApp(BaseApp):
    async def setup(self):
        pass
    async def run(self, app_input: AppInput) -> AppOutput:
        return AppOutput(image=File(path="/tmp/result.png"))
    async def unload(self):
        pass
""",
        mode="describe",
    )
    described = child.next("described")
    assert described["setup_schema"] is None
    assert described["concurrency_ok"]
    assert described["functions"][0]["output_schema"]["properties"]["image"]["format"] == "file"


def test_the_default_is_the_only_function_when_there_is_no_run(apps: Children) -> None:
    child = apps.start("class A(BaseApp):\n    def paint(self, input: BaseAppInput): ...\n", mode="describe")
    assert child.next("described")["default_function"] == "paint"


def test_modules_of_the_app_are_its_own(apps: Children) -> None:
    folder = apps.app("import messages, loader\nclass A(BaseApp):\n    def run(self, i: BaseAppInput): ...\n")
    for name in ("messages", "loader"):
        (folder / f"{name}.py").write_text("MINE = True\n")
    child = apps.start(
        f"sys.path.insert(0, {str(folder)!r})\nimport messages, loader\nassert messages.MINE and loader.MINE\n"
        "class A(BaseApp):\n    def run(self, i: BaseAppInput): ...\n"
    )
    child.next("ready")


PUBLISHED = """
class In(BaseAppInput):
    path: str

class Out(BaseAppOutput):
    image: File

class App(BaseApp):
    async def setup(self, config=None):
        self.ready = True
    async def run(self, input_data: In) -> Out:
        self.logger.info("from %s", self.context.task_id)
        self.report_progress(1, 2)
        return Out(image=File(path=input_data.path))
    async def metadata_too(self, app_input: In, metadata: Metadata) -> Out:
        (self.temp_dir / "x.txt").write_text(metadata.team_id)
        return Out(image=File(path=str(self.temp_dir / "x.txt")))
"""


@pytest.mark.interop
def test_apps_of_the_published_sdk_run(apps: Children, tmp_path: Path) -> None:
    head = "from inferencesh import BaseApp, BaseAppInput, BaseAppOutput, File, Metadata\n"
    python = str(published_python())
    (tmp_path / "a.png").write_bytes(b"123")
    described = apps.start(PUBLISHED, head=head, python=python, mode="describe").next("described")
    assert [f["name"] for f in described["functions"]] == ["run", "metadata_too"]
    assert described["functions"][0]["output_schema"]["properties"]["image"]["format"] == "file"
    child = apps.serve(PUBLISHED, head=head, python=python)
    child.call(path=str(tmp_path / "a.png"))
    final = child.final()
    assert final["output"] == {"image": None}
    assert [(f["pointer"], f["filename"], f["size"]) for f in final["files"]] == [("/image", "a.png", 3)]
    assert child.lines(stream="log") == ["from t1"]
    assert [m["current"] for m in child.seen if m["t"] == "progress"] == [1]
    child.call("metadata_too", task_id="t2", path="")
    (file,) = child.final("t2")["files"]
    assert (Path(child.dirs["outbox"]) / file["name"]).read_text() == "own_1"
    child.send(messages.stop())
    assert child.to_end() == 0
