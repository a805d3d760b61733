"""The server's Prometheus metrics, in a registry of their own.

Two kinds: what happens is counted as it happens (`Metrics.request`, `task_ended`, `commit`: about a microsecond each,
because every task pays for them); what is, is asked for at the scrape (`Metrics.watch`), so nobody keeps a second count
that could drift.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from math import inf

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
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


class _Counter(Collector):
    """Counts by label values. Counted by one thread; the library's own costs several times as much, for any thread."""

    def __init__(self, name: str, text: str, labels: tuple[str, ...]) -> None:
        self._family = (name, text, labels)
        self._counts: dict[tuple[str, ...], int] = {}

    def inc(self, *values: str) -> None:
        self._counts[values] = self._counts.get(values, 0) + 1

    def describe(self) -> Iterable[Metric]:
        name, text, labels = self._family
        return [CounterMetricFamily(name, text, labels=labels)]

    def collect(self) -> Iterable[Metric]:
        name, text, labels = self._family
        family = CounterMetricFamily(name, text, labels=labels)
        for values, count in list(self._counts.items()):
            family.add_metric(values, count)
        return [family]


class _Row:
    """One histogram: how many values fell into each bucket, and their sum."""

    __slots__ = ("counts", "total")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * (buckets + 1)
        self.total = 0.0


class _Histogram(Collector):
    """Buckets of values, by one label or none. Observed by one thread, for the reason of `_Counter`."""

    def __init__(self, name: str, text: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()) -> None:
        self._family = (name, text, labels)
        self._bounds = buckets
        self._rows: dict[tuple[str, ...], _Row] = {} if labels else {(): _Row(len(buckets))}

    def observe(self, value: float, *labels: str) -> None:
        row = self._rows.get(labels)
        if row is None:
            row = self._rows[labels] = _Row(len(self._bounds))
        row.counts[bisect_left(self._bounds, value)] += 1
        row.total += value

    def describe(self) -> Iterable[Metric]:
        name, text, labels = self._family
        return [HistogramMetricFamily(name, text, labels=labels)]

    def collect(self) -> Iterable[Metric]:
        name, text, labels = self._family
        family = HistogramMetricFamily(name, text, labels=labels)
        for values, row in list(self._rows.items()):
            family.add_metric(values, self._cumulated(row), row.total)
        return [family]

    def _cumulated(self, row: _Row) -> list[tuple[str, float]]:
        found, sum_so_far = [], 0
        for bound, count in zip((*self._bounds, inf), list(row.counts), strict=True):
            sum_so_far += count
            found.append(("+Inf" if bound == inf else str(float(bound)), float(sum_so_far)))
        return found


class Metrics:
    """Everything that one server counts. Names start with ``bakehouse_``, times are seconds.

    ``request`` and ``task_ended`` belong to the event loop's thread, ``commit`` to the writer's.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = self._counter("bakehouse_http_requests", "Answered requests", "route", "method", "status")
        self._request_seconds = self._histogram(
            "bakehouse_http_request_seconds", "Time to answer, streams included", _LONG, "route"
        )
        self._ended = self._counter("bakehouse_tasks_ended", "Tasks that ended", "status")
        self._wait = self._histogram("bakehouse_task_queue_seconds", "From accepted to running", _LONG)
        self._run = self._histogram("bakehouse_task_run_seconds", "From running to ended", _LONG)
        self._total = self._histogram("bakehouse_task_total_seconds", "From accepted to ended", _LONG)
        self._batch = self._histogram("bakehouse_store_commit_size", "Changes in one commit", _SIZES)
        self._commit = self._histogram("bakehouse_store_commit_seconds", "Time of one commit", _SHORT)

    def _counter(self, name: str, text: str, *labels: str) -> _Counter:
        counter = _Counter(name, text, labels)
        self.registry.register(counter)
        return counter

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> _Histogram:
        histogram = _Histogram(name, text, buckets, labels)
        self.registry.register(histogram)
        return histogram

    def watch(self, name: str, text: str, levels: Levels, *, label: str | None = None) -> None:
        """Publish *levels*, asked at each scrape, as gauge ``bakehouse_<name>``.

        With *label* each key is that label's value; without it the mapping has one entry, whose key is not shown.
        *levels* must return at once: it is called while the answer to the scrape is written.
        """
        self.registry.register(_Watched(f"bakehouse_{name}", text, label, levels))

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered. *route* is the template (``/tasks/{id}``), never the path: paths are without end."""
        self._requests.inc(route, method, str(status))
        self._request_seconds.observe(seconds, route)

    def task_ended(self, status: str, *, queued: float | None, ran: float | None, total: float) -> None:
        """A task came to its end. *queued* and *ran* are None for a task that never left the queue or never ran."""
        self._ended.inc(status)
        self._total.observe(total)
        if queued is not None:
            self._wait.observe(queued)
        if ran is not None:
            self._run.observe(ran)

    def commit(self, changes: int, seconds: float) -> None:
        """The store committed a batch of *changes*."""
        self._batch.observe(changes)
        self._commit.observe(seconds)

    def render(self) -> bytes:
        """The Prometheus text form of all of it."""
        return generate_latest(self.registry)
