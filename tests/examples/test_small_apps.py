"""The examples that need little: counter, slow, image-edit, each deployed to a real server."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from inferencesh import Inference, TaskFailed

from tests.examples.support import EXAMPLES, Watched, client_of, fetch, png, png_pixels, png_size
from tests.support.server import Server


@pytest.fixture(scope="module")
def server(bakehouse_server: Server) -> Server:
    for name in ("counter", "slow", "image-edit"):
        bakehouse_server.deploy(EXAMPLES / name)
    return bakehouse_server


@pytest.fixture
def client(server: Server) -> Iterator[Inference]:
    with client_of(server) as client:
        yield client


def test_counter_keeps_its_number_within_a_session(client: Inference) -> None:
    with client.session("counter") as first, client.session("counter") as second:
        assert first.call("increment", {"by": 5})["output"]["value"] == 5
        assert first.call("increment")["output"] == {"value": 6, "calls": 2}
        assert second.call("read")["output"]["value"] == 0
        assert first.call("reset")["output"]["value"] == 0
        assert first.call("increment", {"by": -2})["output"]["value"] == -2


@pytest.mark.parametrize(
    ("app", "values", "expected"),
    [("counter", {"by": 2}, {"value": 2, "calls": 1}), ("slow", {"steps": 1}, {"done": 1})],
)
def test_infsh_runs_the_example_without_a_server(app: str, values: dict[str, int], expected: dict[str, int]) -> None:
    argv = ["app", "test", str(EXAMPLES / app), "--input", json.dumps(values), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", "from infsh._cli import main; main()", *argv], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert expected.items() <= json.loads(done.stdout)["output"].items()


def test_counter_s_default_function_increments(client: Inference) -> None:
    task = client.run({"app": "counter", "input": {"by": 3}})
    assert task["output"]["value"] == 3 or task["output"]["calls"] > 1


def test_slow_streams_logs_progress_and_partial_output(client: Inference) -> None:
    seen = Watched(client, {"app": "slow", "input": {"steps": 5, "seconds": 0.1}})
    assert seen.output["words"] == [f"step-{n}" for n in range(1, 6)]
    assert seen.states[-1] == "completed"
    text = "\n".join(seen.logs)
    assert [text.count(f"step {n} of 5") for n in range(1, 6)] == [1] * 5
    assert "5 steps are behind us" in text
    assert seen.progress[-1] == {"current": 5, "total": 5, "message": "step 5"}
    assert 1 < len(seen.partials) <= 5
    assert [partial["done"] for partial in seen.partials] == sorted({partial["done"] for partial in seen.partials})


def test_slow_is_cancelled_and_says_so(client: Inference) -> None:
    stream = client.run({"app": "slow", "input": {"steps": 1000, "seconds": 0.05}}, stream=True)
    logs: list[str] = []
    cancelled = False
    for update in stream:
        logs += update.get("logs") or []
        if not cancelled and update.get("partial_output"):
            client.cancel(update["id"])
            cancelled = True
        last = update
    assert str(last["status"]) == "cancelled"
    text = "\n".join([*logs, *client.get_task(last["id"])["logs"]])
    assert "asked to stop" in text
    assert "steps done" in text


def test_slow_fails_when_told_to(client: Inference) -> None:
    with pytest.raises(TaskFailed, match="told to fail at step 2"):
        client.run({"app": "slow", "input": {"steps": 3, "seconds": 0, "fail_at": 2}})


def test_image_edit_changes_what_the_mask_shows_and_previews_its_steps(client: Inference, tmp_path: Path) -> None:
    image, mask = tmp_path / "image.png", tmp_path / "mask.png"
    image.write_bytes(png(640, 480, (10, 20, 30)))
    mask.write_bytes(png(64, 48, (0, 0, 0), right=(255, 255, 255)))
    params = {"image": image, "mask": mask, "edit": "invert", "steps": 12}
    seen = Watched(client, {"app": "image-edit", "input": params})
    result = fetch(seen.output["image"])
    assert png_size(result) == (640, 480) == (seen.output["width"], seen.output["height"])
    row = png_pixels(result)[200]
    assert (tuple(row[:3]), tuple(row[-3:])) == ((10, 20, 30), (245, 235, 225))
    previews = [partial["preview"] for partial in seen.partials if partial["preview"]]
    assert previews
    assert all(max(png_size(fetch(uri))) == 320 for uri in previews)


def test_image_edit_names_what_is_no_image(client: Inference, tmp_path: Path) -> None:
    text = tmp_path / "image.png"
    text.write_text("not a picture")
    with pytest.raises(TaskFailed, match=r"image\.png is not an image that can be read"):
        client.run({"app": "image-edit", "input": {"image": text}})
