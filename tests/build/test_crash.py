"""``kill -9`` of the server in the middle of a build: the next start builds the version again."""

from __future__ import annotations

from pathlib import Path

from tests.build.support import sdist
from tests.conftest import StartServer
from tests.support.server import Server, pack
from tests.support.waiting import wait_until

INFERENCE = """
import slow_to_build
from infsh import BaseApp, BaseAppInput, BaseAppOutput

class Input(BaseAppInput):
    text: str = ""

class Output(BaseAppOutput):
    text: str

class App(BaseApp):
    async def run(self, input_data: Input) -> Output:
        return Output(text=slow_to_build.WORD)
"""
# The build takes long enough to be hit in the middle.
BACKEND = """
import pathlib, time, zipfile

def get_requires_for_build_wheel(config_settings=None):
    return []

def build_wheel(folder, config_settings=None, metadata_directory=None):
    time.sleep(3)
    name, info = "slow_to_build-1.0-py3-none-any.whl", "slow_to_build-1.0.dist-info"
    with zipfile.ZipFile(pathlib.Path(folder, name), "w") as wheel:
        wheel.writestr("slow_to_build.py", "WORD = 'built'")
        wheel.writestr(info + "/METADATA", "Metadata-Version: 2.1\\nName: slow-to-build\\nVersion: 1.0\\n")
        wheel.writestr(info + "/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "/RECORD", "")
    return name
"""


def app_dir(folder: Path) -> Path:
    folder.mkdir()
    (folder / "inf.yml").write_text("name: patient\n")
    (folder / "inference.py").write_text(INFERENCE)
    (folder / "requirements.txt").write_text("./slow_to_build-1.0.tar.gz\n")
    (folder / "slow_to_build-1.0.tar.gz").write_bytes(sdist("slow_to_build", BACKEND))
    return folder


def begin_deploy(server: Server, folder: Path) -> str:
    """The id of the build task."""
    record = server.upload(pack(folder), "app.zip", "application/zip")
    answer = server.api.post("/apps", json={"version": {"package_uri": record["uri"]}})
    return str(server.data(answer)["build_task_id"])


def processes_of(server: Server) -> list[str]:
    """The command lines that name the server's data directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it ended while we looked
        if str(server.home) in line:
            found.append(line)
    return found


def test_a_build_survives_the_death_of_its_server(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server()
    task_id = begin_deploy(server, app_dir(tmp_path / "patient"))
    wait_until(lambda: list(server.home.glob("envs/*/pyvenv.cfg")), "the environment's beginning", 30)
    server.kill()
    wait_until(lambda: not processes_of(server), "the end of what the server had started", 10)
    assert not list(server.home.glob("envs/*/.ready"))
    server.restart()
    build = server.wait(task_id, 90)
    assert build["status_text"] == "completed", build
    assert server.run("patient")["output"]["text"] == "built"
    assert len(list(server.home.glob("envs/*/.ready"))) == 1
    assert not list(server.home.glob("versions/.half-*"))
