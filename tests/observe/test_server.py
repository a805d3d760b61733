"""What a real server tells its operator: metrics that count, log lines with words, no key in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import StartServer
from tests.support.server import Server

STORY = Path(__file__).parents[1] / "cli" / "apps" / "story"


def _values(server: Server) -> dict[str, float]:
    """Every metric, summed over its labels."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(server.api.get("/metrics").text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0) + sample.value
    return found


@pytest.fixture(scope="module")
def used(module_servers: StartServer) -> Server:
    """A server in debug that has built an app and run it twice, once badly."""
    server = module_servers(arguments=["--log-level", "debug", "--log-format", "json"])
    server.deploy(STORY)
    server.run("story", {"words": 2})
    server.run("story", {"fail": True})
    return server


def test_what_happened_is_counted(used: Server) -> None:
    found = _values(used)
    assert found["bakehouse_tasks_ended_total"] == 3  # the build too
    assert found["bakehouse_task_total_seconds_count"] == 3
    assert found["bakehouse_task_run_seconds_count"] == 3
    assert found["bakehouse_store_commit_size_count"] > 3
    assert found["bakehouse_store_commit_seconds_sum"] > 0
    assert found["bakehouse_http_requests_total"] >= 5
    assert found["bakehouse_instances"] >= 1
    assert found["bakehouse_queue_depth"] == 0
    assert found["bakehouse_streams_open"] == 0


def test_routes_are_templates(used: Server) -> None:
    used.api.get("/tasks/task_1")
    used.api.get("/no/such/route/at/all")
    text = used.api.get("/metrics").text
    assert 'route="/tasks/{task_id}"' in text
    assert "task_1" not in text
    assert "/no/such" not in text


def test_log_lines_have_words_and_no_key(used: Server) -> None:
    used.client(used.key).get("/tasks/x/stream", params={"access_token": used.key})
    text = used.log_tail(10**7)
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert {"request"} <= {line["action"] for line in lines}
    assert "unnamed" not in {line["action"] for line in lines}
    assert not any(used.key in json.dumps(line) for line in lines)
    assert text.count(used.key) == 2  # shown once, with the line to copy
