"""``@inferencesh/sdk@0.6.54`` from npm, bundled: run with ``onUpdate``, polling, cancel, upload, sessions, records."""

from __future__ import annotations

import pytest

from tests.interop.conftest import Scenario

pytestmark = pytest.mark.interop
RUNNING, COMPLETED, FAILED, CANCELLED = 7, 10, 11, 12


def test_run_reports_updates_and_resolves(js_scenario: Scenario) -> None:
    found = js_scenario("run")
    assert found["done"]["status"] == COMPLETED
    assert found["done"]["output"] == {"text": "hello interop", "step": 5}
    updates = found["updates"]
    assert updates[-1]["status"] == COMPLETED
    assert RUNNING in [update["status"] for update in updates]
    assert [line for update in updates for line in update["logs"]] == [f"step {step} of 5" for step in range(1, 6)]
    assert any(update.get("progress") for update in updates)
    assert any(update.get("partial_output") for update in updates)


def test_run_without_waiting_can_be_watched_later(js_scenario: Scenario) -> None:
    found = js_scenario("run_without_waiting")
    assert found["started"]["status"] < COMPLETED
    assert found["done"]["output"]["text"] == "later"


def test_polling_resolves_too(js_scenario: Scenario) -> None:
    found = js_scenario("polling")
    assert found["done"]["output"] == {"text": "polled", "step": 8}
    assert found["updates"][-1]["status"] == COMPLETED


def test_cancel_rejects_the_run(js_scenario: Scenario) -> None:
    found = js_scenario("cancel")
    assert RUNNING in found["seen"]
    assert found["error"]["text"] == "task cancelled"
    assert found["final"] == CANCELLED


def test_a_failing_app_rejects_with_its_message(js_scenario: Scenario) -> None:
    found = js_scenario("failing")
    assert "no cake today" in found["streamed"]["text"]
    assert "no cake today" in found["polled"]["text"]
    assert found["last"]["status"] == FAILED


def test_what_is_refused_is_refused_by_http(js_scenario: Scenario) -> None:
    found = js_scenario("refused")
    codes = {name: (error["type"].lstrip("_"), error["statusCode"]) for name, error in found.items()}
    assert codes == {
        "unknown_app": ("InferenceError", 404),
        "wrong_input": ("InferenceError", 400),
        "unknown_task": ("InferenceError", 404),
        "bad_key": ("InferenceError", 401),
    }


def test_uploads_from_every_source_reach_the_app(js_scenario: Scenario) -> None:
    found = js_scenario("upload")
    assert found["output"]["digests"] == found["expected"]
    assert found["uploads"][0]["filename"] == "raw.bin"
    assert found["uploads"][1]["content_type"] == "image/png"
    ids = {item["id"] for item in found["listed"]["items"]}
    assert {file["id"] for file in found["uploads"]} <= ids
    assert found["first"]["size"] == 2048
    assert found["gone"]["statusCode"] == 404


def test_a_session_keeps_its_state(js_scenario: Scenario) -> None:
    found = js_scenario("sessions")
    assert (found["first"]["output"]["total"], found["second"]["output"]["total"]) == (1, 11)
    assert found["info"]["call_count"] == 2
    assert found["kept"]["status"] == "active"
    assert found["id"] in found["listed"]
    assert found["ended"]["statusCode"] == 410


def test_records_of_tasks_and_apps(js_scenario: Scenario) -> None:
    found = js_scenario("records")
    task_id = found["done"]["id"]
    assert found["status"]["id"] == found["logs"]["task_id"] == found["timings"]["task_id"] == task_id
    assert "step 1 of 3" in [line["content"] for line in found["logs"]["logs"]]
    assert found["timings"]["events"]
    assert task_id in [item["id"] for item in found["listed"]["items"]]
    assert "interop-kit" in [item["name"] for item in found["apps"]["items"]]
    assert found["app"]["name"] == "interop-kit"
    assert len(found["versions"]["items"]) == 1
    assert found["gone"]["statusCode"] == 404


def test_the_event_source_ends_with_the_terminal_task(js_scenario: Scenario) -> None:
    found = js_scenario("event_source")
    assert found["statuses"][-1] == COMPLETED
    assert found["statuses"] == sorted(found["statuses"])
    assert found["last"]["output"]["text"] == "sse"
