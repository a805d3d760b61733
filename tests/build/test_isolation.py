"""A package's set-up code runs while its environment is built: it sees its build and nothing else of the server."""

from __future__ import annotations

import json
import subprocess

import pytest

from bakehouse.launch.base import LaunchSettings
from bakehouse.launch.isolate import offer
from bakehouse.wiring.tools import isolated_spawn
from tests.build.support import Bench, Log, app_files, sdist

# A build backend in the package itself: it tries what it must not, and puts what it found into the wheel.
BACKEND = """
import json, os, pathlib, zipfile

def tried(action):
    try:
        return str(action())
    except OSError as error:
        return type(error).__name__

def get_requires_for_build_wheel(config_settings=None):
    return []

def build_wheel(folder, config_settings=None, metadata_directory=None):
    home = pathlib.Path(HOME)
    found = {
        "secret": tried(lambda: (home / "secret.key").read_text()),
        "other": tried(lambda: list((home / "versions" / "other").iterdir())),
        "write": tried(lambda: (home / "planted").write_text("x")),
        "cache": tried(lambda: list((home / "cache" / "uv" / "own_2").iterdir())),
        "environ": [key for key in os.environ if "SECRET" in key],
    }
    name = "nosy-1.0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder, name), "w") as wheel:
        wheel.writestr("nosy.py", f"FOUND = {found!r}")
        wheel.writestr("nosy-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: nosy\\nVersion: 1.0\\n")
        wheel.writestr("nosy-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("nosy-1.0.dist-info/RECORD", "")
    return name
"""


async def test_set_up_code_reads_and_writes_its_own_build_only(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    if not offer().landlock and not offer().namespaces:
        pytest.skip(f"this machine cannot isolate: {offer().reasons}")
    monkeypatch.setenv("MY_SECRET", "hunter2")
    bench.home.mkdir(exist_ok=True)
    (bench.home / "secret.key").write_text("the server's key")
    for folder in ("versions/other", "cache/uv/own_2"):
        (bench.home / folder).mkdir(parents=True)
        (bench.home / folder / "theirs").touch()
    files = {
        **app_files(requirements_txt="./nosy-1.0.tar.gz"),
        "nosy-1.0.tar.gz": sdist("nosy", BACKEND.replace("HOME", repr(str(bench.home)))),
    }
    version = bench.version(files)
    log = Log()
    builder = bench.builder(isolated_spawn(LaunchSettings(bench.home)))
    environment = await builder.prepare(await builder.build(version, log, log.step))
    code = "import json, nosy; print(json.dumps(nosy.FOUND))"
    answer = subprocess.run([environment.python, "-I", "-c", code], capture_output=True, text=True, check=True)  # noqa: ASYNC221
    found = json.loads(answer.stdout)
    assert found.pop("environ") == []
    # Where the data directory lies below a private /tmp a write succeeds, into nowhere.
    assert found.pop("write") in ("1", "PermissionError", "FileNotFoundError", "OSError")
    assert set(found.values()) <= {"PermissionError", "FileNotFoundError"}
    assert not (bench.home / "planted").exists()
    assert not list((bench.home / "tmp" / "builds").iterdir())
