"""The ``infsh`` command as a process: exit statuses, what goes to stdout, what to stderr."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from infsh._deploy import DeployError, packed

from tests.infsh.web import Answer, Asked, serving
from tests.support.server import Server


def infsh(*arguments: object, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from infsh._cli import main; main()", *map(str, arguments)]
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(cwd), "COLUMNS": "200", **env}
    return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=120)


def make(folder: Path, source: str) -> Path:
    folder.mkdir()
    (folder / "inf.yml").write_text(f"name: {folder.name}\n")
    (folder / "inference.py").write_text(f"from infsh import *\nimport sys, os, asyncio\n{source}")
    return folder


def test_the_template_runs(tmp_path: Path) -> None:
    assert infsh("app", "init", "hello", cwd=tmp_path).returncode == 0
    done = infsh(
        "app", "test", "hello", "--input", '{"name": "Ada", "times": 2}', "--setup", '{"greeting": "Hi"}', cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"text": "Hi, Ada! Hi, Ada!"}
    for text in ("greeting Ada", "2/2", '≈ {"text": "Hi, Ada!"}'):
        assert text in done.stderr
    again = infsh("app", "init", "hello", cwd=tmp_path)
    assert (again.returncode, "already has" in again.stderr) == (2, True)
    assert infsh("app", "init", "Not A Name", cwd=tmp_path).returncode == 2


def test_inputs_come_from_json_files_and_stdin(tmp_path: Path) -> None:
    make(
        tmp_path / "a",
        "class In(BaseAppInput):\n    n: int\nclass App(BaseApp):\n    def run(self, i: In):\n        return i.n + 1\n",
    )
    (tmp_path / "in.json").write_text('{"n": 1}')
    for text in ('{"n": 1}', "@in.json", "in.json"):
        assert infsh("app", "test", "a", "--input", text, cwd=tmp_path).stdout == "2\n"
    for text in ("nothing", "[1]", '{"n"'):
        assert infsh("app", "test", "a", "--input", text, cwd=tmp_path).returncode == 2


OUTCOMES = {
    "raises": ("def run(self, i: BaseAppInput):\n        raise ValueError('boom')", 1, "ValueError: boom"),
    "exits": ("def run(self, i: BaseAppInput):\n        sys.exit(7)", 1, "SystemExit: 7"),
    "dies": ("def run(self, i: BaseAppInput):\n        os._exit(7)", 1, "ended with status 7"),
    "nan": ("def run(self, i: BaseAppInput):\n        return {'x': float('nan')}", 1, "nan, which is not JSON"),
    "missing file": (
        "def run(self, i: BaseAppInput):\n        return {'f': File(path='/no/x')}",
        1,
        "/no/x does not exist",
    ),
    "no yield": ("async def run(self, i: BaseAppInput):\n        if 0: yield", 1, "yielded nothing"),
    "wrong input": ("def run(self, i: In): ...", 2, "/input/n: Field required"),
    "wrong setup": (
        "def setup(self, config: In): ...\n    def run(self, i: BaseAppInput): ...",
        2,
        "/setup/n: Field required",
    ),
}


@pytest.mark.parametrize("name", OUTCOMES)
def test_a_local_run_that_fails_says_why(tmp_path: Path, name: str) -> None:
    source, status, text = OUTCOMES[name]
    make(tmp_path / "a", f"class In(BaseAppInput):\n    n: int\nclass App(BaseApp):\n    {source}\n")
    done = infsh("app", "test", "a", "--json", cwd=tmp_path)
    assert (done.returncode, text in done.stderr, text in json.loads(done.stdout)["error"]) == (status, True, True)


def test_prints_of_the_app_do_not_reach_stdout(tmp_path: Path) -> None:
    make(
        tmp_path / "a",
        "class App(BaseApp):\n    def run(self, i: BaseAppInput):\n        print('hey'); os.system('echo ho')\n",
    )
    done = infsh("app", "test", "a", cwd=tmp_path)
    assert done.stdout == "null\n"
    assert "hey" in done.stderr
    assert "ho" in done.stderr


def test_packages_are_equal_for_equal_folders(tmp_path: Path) -> None:
    first, second = (make(tmp_path / name, "x = 1\n") for name in ("one", "two"))
    (second / "inf.yml").write_text((first / "inf.yml").read_text())
    for junk in (".git/config", "__pycache__/a.pyc", ".venv/bin/python", "node_modules/x.js", ".env", "a.pyc"):
        (second / junk).parent.mkdir(parents=True, exist_ok=True)
        (second / junk).write_text("junk")
    (first / "run.sh").write_text("#!/bin/sh\n")
    (second / "run.sh").write_text("#!/bin/sh\n")
    (first / "run.sh").chmod(0o755)
    (second / "run.sh").chmod(0o700)
    with packed(first) as one, packed(second) as two:
        assert one.files == ["inf.yml", "inference.py", "run.sh"]
        assert one.digest == two.digest
        assert zipfile.ZipFile(one.path).getinfo("run.sh").external_attr >> 16 == 0o100755
    done = infsh("app", "deploy", "two", "--dry-run", cwd=tmp_path)
    assert done.stdout == "inf.yml\ninference.py\nrun.sh\n"


def test_what_cannot_be_packed(tmp_path: Path) -> None:
    with pytest.raises(DeployError, match=r"inf.yml and inference.py missing .* Pie.toml missing"), packed(tmp_path):
        raise AssertionError("packed")
    with pytest.raises(DeployError, match="there is no such folder"), packed(tmp_path / "nowhere"):
        raise AssertionError("packed")
    folder = make(tmp_path / "a", "")
    (folder / "secret").symlink_to("/etc/hostname")
    with pytest.raises(DeployError, match="links to a place outside"), packed(folder):
        raise AssertionError("packed")


@pytest.mark.parametrize(
    ("env", "text"),
    [
        ({}, "no API key"),
        ({"INFSH_API_KEY": "k", "INFERENCE_BASE_URL": "http://127.0.0.1:1"}, "cannot reach http://127.0.0.1:1"),
    ],
)
def test_no_server_is_status_three(tmp_path: Path, env: dict[str, str], text: str) -> None:
    for arguments in (("list",), ("run", "x"), ("deploy", make(tmp_path / f"a{len(env)}", ""))):
        done = infsh("app", *arguments, cwd=tmp_path, **env)
        assert (done.returncode, text in done.stderr) == (3, True), done.stderr
        if arguments[0] == "deploy":
            break


def test_a_cut_stream_goes_on_where_it_ended(tmp_path: Path) -> None:
    lines = [
        {"id": "t", "status": 7, "status_text": "running", "seq": 3, "logs": ["one"]},
        {"id": "t", "status": 10, "status_text": "completed", "seq": 9, "logs": ["two"]},
    ]

    def answer(asked: Asked) -> Answer:
        if asked.path.startswith("/tasks/t/stream"):
            line: Any = lines[1] if asked.path.endswith("?after=3") else lines[0]
            return 200, json.dumps(line).encode() + b"\n" + b'{"type":"heartbeat"}\n\n'
        task = {"id": "t", "status_text": "completed", "output": {"n": 1}}
        return 200, json.dumps({"data": task}).encode()

    with serving(answer) as web:
        done = infsh("app", "run", "x", cwd=tmp_path, INFERENCE_BASE_URL=web.url, INFERENCE_API_KEY="k")
        (posted,) = (asked for asked in web.asked if asked.method == "POST")
    assert json.loads(done.stdout) == {"n": 1}
    assert [done.stderr.count(text) for text in ("one", "two", "completed")] == [1, 1, 1]
    assert posted.headers["Idempotency-Key"]
    assert posted.headers["Authorization"] == "Bearer k"


def test_without_its_packages_the_command_says_what_to_install(tmp_path: Path) -> None:
    script = "import sys; sys.modules['typer'] = None\nfrom infsh._cli import main\nmain()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, 'the infsh command needs typer: pip install "bakehouse-infsh[cli]"\n')


def test_deploy_run_and_list_against_a_server(tmp_path: Path, bakehouse_server: Server) -> None:
    env = {"INFERENCE_BASE_URL": bakehouse_server.base_url, "INFERENCE_API_KEY": bakehouse_server.key}
    make(
        tmp_path / "reader",
        "class In(BaseAppInput):\n    file: File\nclass App(BaseApp):\n    async def run(self, i: In):\n"
        "        print('reading')\n        return {'text': open(i.file.path).read()}\n",
    )
    done = infsh("app", "deploy", "reader", "--json", cwd=tmp_path, **env)
    assert done.returncode == 0, done.stderr
    ref = json.loads(done.stdout)["ref"]
    assert ref.startswith("local/reader@")
    (tmp_path / "page.txt").write_text("words")
    done = infsh("app", "run", ref, "--input", '{"file": "page.txt"}', cwd=tmp_path, **env)
    assert json.loads(done.stdout) == {"text": "words"}, done.stderr
    assert "reading" in done.stderr
    assert infsh("app", "run", ref, "--input", '{"file": 3}', cwd=tmp_path, **env).returncode == 2
    assert "local/reader" in infsh("app", "list", cwd=tmp_path, **env).stdout
    make(tmp_path / "broken", "raise RuntimeError('boom')\n")
    done = infsh("app", "deploy", "broken", cwd=tmp_path, **env)
    assert done.returncode == 1
    assert "boom" in done.stderr
    assert infsh("app", "list", cwd=tmp_path, **{**env, "INFERENCE_API_KEY": "inf_wrong"}).returncode == 3
