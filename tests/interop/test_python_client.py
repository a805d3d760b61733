"""``inferencesh==0.36.0`` from PyPI, sync and async: run, wait, stream, cancel, files, sessions, errors."""

from __future__ import annotations

import pytest

from tests.interop.conftest import Scenario

pytestmark = pytest.mark.interop
COMPLETED, CANCELLED = 10, 12


def test_run_waits_and_returns_the_finished_task(python_scenario: Scenario) -> None:
    found = python_scenario("run")
    assert found["done"]["status"] == COMPLETED
    assert found["done"]["output"] == {"text": "hello interop", "step": 3}
    assert found["done"]["input"]["text"] == "hello interop"
    assert found["again"]["id"] == found["done"]["id"]
    assert found["again"]["output"] == found["done"]["output"]
    assert found["again"]["logs"] == ["step 1 of 3", "step 2 of 3", "step 3 of 3"]


def test_run_without_waiting_answers_with_a_task_that_is_not_over(python_scenario: Scenario) -> None:
    found = python_scenario("run_without_waiting")
    assert 1 <= found["started"]["status"] < COMPLETED
    assert found["done"]["id"] == found["started"]["id"]
    assert found["done"]["output"]["text"] == "later"


def test_stream_shows_each_step_once_and_ends_with_the_result(python_scenario: Scenario) -> None:
    found = python_scenario("stream")
    assert found["names"][-1] == "COMPLETED"
    assert {"QUEUED", "RUNNING"} <= set(found["names"])
    moves = [name for name, before in zip(found["names"], [None, *found["names"]], strict=False) if name != before]
    assert len(moves) == len(set(moves)), f"a status came back: {moves}"
    assert found["logs"] == [f"step {step} of 5" for step in range(1, 6)]
    assert found["result"]["output"] == {"text": found["text"], "step": 5}
    assert found["last"]["id"] == found["result"]["id"]


def test_stream_of_a_finished_task_ends_at_once(python_scenario: Scenario) -> None:
    found = python_scenario("stream_of_a_finished_task")
    assert found["count"] >= 1
    assert found["last"]["status"] == COMPLETED
    assert found["last"]["output"]["text"] == "over"


def test_cancel_ends_a_running_task_and_is_harmless_after(python_scenario: Scenario) -> None:
    found = python_scenario("cancel")
    assert "RUNNING" in found["seen"]
    assert "cancelled" in found["error"].lower()
    assert found["final"] == CANCELLED


def test_a_failing_app_raises_its_message(python_scenario: Scenario) -> None:
    found = python_scenario("failing")
    assert found["run"]["type"] == found["wait"]["type"] == "RuntimeError"
    assert "no cake today" in found["run"]["text"]
    assert "no cake today" in found["wait"]["text"]


def test_what_is_refused_is_refused_by_http(python_scenario: Scenario) -> None:
    found = python_scenario("refused")
    codes = {name: (error["type"], error["status_code"]) for name, error in found.items()}
    assert codes == {
        "unknown_app": ("APIError", 404),
        "wrong_input": ("APIError", 400),
        "unknown_function": ("APIError", 404),
        "unknown_task": ("APIError", 404),
        "unknown_session": ("APIError", 404),
        "bad_key": ("APIError", 401),
    }
    assert "text" in found["wrong_input"]["text"]


def test_uploads_from_every_source_reach_the_app(python_scenario: Scenario) -> None:
    found = python_scenario("upload")
    path, raw, *_ = found["uploads"]
    assert (path["filename"], path["content_type"]) == ("cake.txt", "text/plain")
    assert (raw["filename"], raw["content_type"]) == ("raw.bin", "application/x-raw")
    assert found["output"]["digests"] == found["expected"]
    assert found["output"]["joined"].startswith("http")
    assert {item["role"] for item in found["listed"]} == {"input", "output"}


def test_files_in_an_input_are_uploaded_by_the_client(python_scenario: Scenario) -> None:
    found = python_scenario("upload_in_input")
    assert found["output"]["digests"] == found["expected"]
    assert all(uri.startswith("http") for uri in found["input"]["files"])


def test_a_session_keeps_its_state_to_itself(python_scenario: Scenario) -> None:
    found = python_scenario("sessions")
    assert [total["total"] for total in found["totals"]] == [11, 111]
    assert found["totals"][-1]["setups"] == 1
    assert found["others"]["total"] == 6
    assert found["info"]["call_count"] == 3
    assert found["info"]["status"] == "active"
    assert found["kept"]["id"] == found["ids"][0]
    assert set(found["ids"]) <= set(found["listed"])
    assert found["ended"]["status_code"] == 410


def test_a_deleted_task_is_gone(python_scenario: Scenario) -> None:
    assert python_scenario("delete")["after"]["status_code"] == 404


@pytest.mark.slow
def test_a_task_that_says_nothing_for_over_a_minute(python_scenario: Scenario) -> None:
    found = python_scenario("long_silence")
    assert found["done"]["output"] == {"waited": 70}
