"""The server's Prometheus metrics, in a registry of their own.

Two kinds: what happens is counted as it happens (`Metrics.request`, `task_ended`, `commit`: a few microseconds each);
what is, is asked for at the scrape (`Metrics.watch`), so nobody keeps a second count that could drift.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

Levels = Callable[[], Mapping[str, float]]

_SHORT = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_LONG = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class _Watched(Collector):
    """One gauge family whose values are asked for at the scrape."""

    def __init__(self, name: str, text: str, label: str | None, levels: Levels) -> None:
        self._name, self._text, self._label, self._levels = name, text, label, levels

    def describe(self) -> Iterable[Metric]:
        return [self._family()]

    def collect(self) -> Iterable[Metric]:
        family = self._family()
        for label, value in self._levels().items():
            family.add_metric([label] if self._label else [], value)
        return [family]

    def _family(self) -> GaugeMetricFamily:
        return GaugeMetricFamily(self._name, self._text, labels=[self._label] if self._label else [])


class Metrics:
    """Everything that one server counts. Names start with ``bakehouse_``, times are seconds."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self._requests = Counter(
            "bakehouse_http_requests", "Answered requests", ["route", "method", "status"], registry=registry
        )
        self._request_seconds = Histogram(
            "bakehouse_http_request_seconds",
            "Time to answer, streams included",
            ["route"],
            buckets=_LONG,
            registry=registry,
        )
        self._ended = Counter("bakehouse_tasks_ended", "Tasks that ended", ["status"], registry=registry)
        self._wait = Histogram(
            "bakehouse_task_queue_seconds", "From accepted to claimed", buckets=_LONG, registry=registry
        )
        self._run = Histogram("bakehouse_task_run_seconds", "From running to ended", buckets=_LONG, registry=registry)
        self._total = Histogram(
            "bakehouse_task_total_seconds", "From accepted to ended", buckets=_LONG, registry=registry
        )
        self._batch = Histogram(
            "bakehouse_store_commit_size", "Changes in one commit", buckets=_SIZES, registry=registry
        )
        self._commit = Histogram(
            "bakehouse_store_commit_seconds", "Time of one commit", buckets=_SHORT, registry=registry
        )

    def watch(self, name: str, text: str, levels: Levels, *, label: str | None = None) -> None:
        """Publish *levels*, asked at each scrape, as gauge ``bakehouse_<name>``.

        With *label* each key is that label's value; without it the mapping has one entry, whose key is not shown.
        *levels* must return at once: it is called while the answer to the scrape is written.
        """
        self.registry.register(_Watched(f"bakehouse_{name}", text, label, levels))

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered. *route* is the template (``/tasks/{id}``), never the path: paths are without end."""
        self._requests.labels(route, method, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def task_ended(self, status: str, *, queued: float | None, ran: float | None, total: float) -> None:
        """A task came to its end. *queued* and *ran* are None for a task that never left the queue or never ran."""
        self._ended.labels(status).inc()
        self._total.observe(total)
        if queued is not None:
            self._wait.observe(queued)
        if ran is not None:
            self._run.observe(ran)

    def commit(self, changes: int, seconds: float) -> None:
        """The store committed a batch of *changes*. May be called from any thread."""
        self._batch.observe(changes)
        self._commit.observe(seconds)

    def render(self) -> bytes:
        """The Prometheus text form of all of it."""
        return generate_latest(self.registry)
