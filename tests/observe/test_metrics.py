"""Metrics: what is counted comes out, under stable names."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from bakehouse.observe.metrics import Metrics


def _samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(metrics.render().decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_requests_by_route_and_status() -> None:
    metrics = Metrics()
    metrics.request("/tasks/{task_id}", "GET", 200, 0.002)
    metrics.request("/tasks/{task_id}", "GET", 200, 0.004)
    metrics.request("/tasks/{task_id}", "GET", 404, 0.001)
    found = _samples(metrics)
    labels = (("method", "GET"), ("route", "/tasks/{task_id}"))
    assert found["bakehouse_http_requests_total", (*labels, ("status", "200"))] == 2
    assert found["bakehouse_http_requests_total", (*labels, ("status", "404"))] == 1
    assert found["bakehouse_http_request_seconds_count", (("route", "/tasks/{task_id}"),)] == 3


def test_a_task_that_never_ran_has_no_run_time() -> None:
    metrics = Metrics()
    metrics.task_ended("completed", queued=0.1, ran=0.5, total=0.7)
    metrics.task_ended("cancelled", queued=None, ran=None, total=3.0)
    found = _samples(metrics)
    assert found["bakehouse_tasks_ended_total", (("status", "completed"),)] == 1
    assert found["bakehouse_task_run_seconds_count", ()] == 1
    assert found["bakehouse_task_queue_seconds_count", ()] == 1
    assert found["bakehouse_task_total_seconds_count", ()] == 2
    assert found["bakehouse_task_total_seconds_sum", ()] == 3.7


def test_commits() -> None:
    metrics = Metrics()
    metrics.commit(12, 0.003)
    found = _samples(metrics)
    assert found["bakehouse_store_commit_size_sum", ()] == 12
    assert found["bakehouse_store_commit_seconds_count", ()] == 1


def test_buckets_hold_what_is_not_above_them() -> None:
    metrics = Metrics()
    for size in (1, 2, 3, 10_000):
        metrics.commit(size, 0)
    found = _samples(metrics)
    counts = {dict(labels)["le"]: value for (name, labels), value in found.items() if name.endswith("size_bucket")}
    assert (counts["1.0"], counts["2.0"], counts["4.0"], counts["512.0"], counts["+Inf"]) == (1, 2, 3, 3, 4)
    assert found["bakehouse_store_commit_size_count", ()] == 4


def test_levels_are_asked_for_at_the_scrape() -> None:
    metrics = Metrics()
    states = {"queued": 3.0}
    metrics.watch("tasks", "Tasks by state", lambda: states, label="status")
    metrics.watch("queue_depth", "Waiting tasks", lambda: {"": 7})
    assert _samples(metrics)["bakehouse_tasks", (("status", "queued"),)] == 3
    states["running"] = 1.0
    found = _samples(metrics)
    assert found["bakehouse_tasks", (("status", "running"),)] == 1
    assert found["bakehouse_queue_depth", ()] == 7


def test_two_servers_in_one_process_do_not_share_counts() -> None:
    first, second = Metrics(), Metrics()
    first.commit(1, 0.001)
    assert _samples(second)["bakehouse_store_commit_seconds_count", ()] == 0
