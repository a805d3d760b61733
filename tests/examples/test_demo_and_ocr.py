"""``bakehouse demo`` from start to end, and then the OCR app on the server's data that the demo left."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from inferencesh import Inference

from tests.conftest import StartServer
from tests.examples.support import EXAMPLES, Watched, client_of, fetch, png, png_size
from tests.support.server import Server

CODE = (
    "import sys; from pathlib import Path; from bakehouse.cli.demo import demo; sys.exit(demo(Path(sys.argv[1]), True))"
)
TITLE = "THE MORNING LOAF"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "home"


@pytest.fixture(scope="module")
def demo(home: Path) -> subprocess.CompletedProcess[str]:
    """The demo, run as a command is: its output through a pipe."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("BAKEHOUSE_", "INFERENCE_"))}
    return subprocess.run(
        [sys.executable, "-c", CODE, str(home)], capture_output=True, text=True, env=environ, timeout=280
    )


@pytest.fixture(scope="module")
def server(demo: subprocess.CompletedProcess[str], home: Path, module_servers: StartServer) -> Server:
    assert demo.returncode == 0, demo.stdout + demo.stderr
    return module_servers(home=home)


@pytest.fixture
def client(server: Server) -> Iterator[Inference]:
    with client_of(server) as client:
        yield client


def test_the_demo_shows_everything_and_ends_well(demo: subprocess.CompletedProcess[str], home: Path) -> None:
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert demo.stderr == ""
    for part in (
        "environment built in",
        "setting_up",
        "models loaded in",
        "16/16",
        f"≈ {TITLE}",
        "previews seen",
        "read",
    ):
        assert part in demo.stdout
    (saved,) = [line.split()[-1] for line in demo.stdout.splitlines() if "✓ annotated image" in line]
    assert png_size(Path(saved).read_bytes()) == (900, 1000)
    assert "\x1b" not in demo.stdout, "no control characters in a pipe"
    endpoint = (home / "endpoint.json").read_text()
    assert endpoint


def test_the_demo_s_server_has_gone(demo: subprocess.CompletedProcess[str], home: Path) -> None:
    left = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes()
        except OSError:
            continue  # it ended while we looked
        if os.fsencode(home) in line:
            left.append(line)
    assert left == []


def test_ocr_reads_the_page_and_marks_its_lines(client: Inference) -> None:
    seen = Watched(client, {"app": "ocr", "input": {"image": EXAMPLES / "ocr" / "page.png"}})
    lines = seen.output["lines"]
    assert lines[0]["text"] == TITLE
    assert len(lines) == 16
    assert all(line["score"] > 0.8 and len(line["box"]) == 4 for line in lines)
    assert seen.output["text"].splitlines() == [line["text"] for line in lines]
    assert png_size(fetch(seen.output["annotated"])) == (900, 1000)
    assert seen.progress[-1] == {"current": 16, "total": 16, "message": "reading"}
    counts = [len(partial["lines"]) for partial in seen.partials]
    assert counts == sorted(counts)
    assert len(counts) > 3


def test_ocr_s_setup_choice_gets_an_instance_of_its_own(client: Inference) -> None:
    page = EXAMPLES / "ocr" / "page.png"
    params = {"app": "ocr", "input": {"image": page, "annotate": False}}
    client.run(params)
    fast = Watched(client, params)
    assert not any("models loaded" in line for line in fast.logs), "the second run meets a warm instance"
    accurate = Watched(client, {**params, "setup": {"detail": "accurate"}})
    assert any("detail accurate" in line for line in accurate.logs)
    assert accurate.output["text"] == fast.output["text"]
    assert accurate.output.get("annotated") is None


def test_ocr_finds_nothing_on_an_empty_page(client: Inference, tmp_path: Path) -> None:
    page = tmp_path / "empty.png"
    page.write_bytes(png(300, 200, (255, 255, 255)))
    output = Watched(client, {"app": "ocr", "input": {"image": page}}).output
    assert (output["text"], output["lines"]) == ("", [])


def test_a_wrong_setup_value_is_refused_at_once(server: Server) -> None:
    body = {"app": "ocr", "input": {"image": "https://example.org/x.png"}, "setup": {"detail": "best"}}
    response = server.api.post("/apps/run", json=body)
    assert response.status_code == 400
    assert "/setup/detail" in response.text


def test_the_demo_says_why_it_failed(tmp_path: Path) -> None:
    blocked = tmp_path / "home"
    blocked.write_text("a file where the data directory should be")
    done = subprocess.run([sys.executable, "-c", CODE, str(blocked)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "the demo failed:" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
