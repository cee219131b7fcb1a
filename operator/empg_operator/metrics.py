"""What the operator says about itself to Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

Result = Literal["success", "conflict", "refused", "denied", "unavailable", "bug"]
"""How a pass over one run ends."""

_PREFIX = "empg_operator"
_RECONCILE_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60)
_LATENCY_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """Metrics of one operator process, in a registry of their own. Times are in seconds."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.reconciles = Counter(
            f"{_PREFIX}_reconcile",
            "Passes over one run, by result: success, conflict (it had changed meanwhile), "
            "refused (the API server does not take an object of the run, its status or another request), "
            "denied (the operator lacks a right), "
            "unavailable (the API server could not be reached or was too busy), bug.",
            ["result"],
            registry=self.registry,
        )
        for result in get_args(Result):
            # An alert on the increase would not see the step by which a series begins.
            self.reconciles.labels(result)
        self.reconcile_seconds = Histogram(
            f"{_PREFIX}_reconcile_seconds",
            "Time of one pass over one run.",
            buckets=_RECONCILE_BUCKETS,
            registry=self.registry,
        )
        self.queue_depth = Gauge(f"{_PREFIX}_workqueue_depth", "Runs that wait for a worker.", registry=self.registry)
        self.queue_latency_seconds = Histogram(
            f"{_PREFIX}_workqueue_latency_seconds",
            "Time from the event to the beginning of the pass over its run.",
            buckets=_LATENCY_BUCKETS,
            registry=self.registry,
        )
        self.api_requests = Counter(
            f"{_PREFIX}_api_requests",
            "Requests to the API server but watches, by HTTP status; none: no answer came.",
            ["verb", "code"],
            registry=self.registry,
        )
        self.api_request_seconds = Histogram(
            f"{_PREFIX}_api_request_seconds",
            "Time of one such request.",
            ["verb"],
            buckets=_REQUEST_BUCKETS,
            registry=self.registry,
        )
        self.watch_age_seconds = Gauge(
            f"{_PREFIX}_watch_last_event_age_seconds",
            "Time since the watch of a resource last showed a sign of life: an event, or a stream that was opened.",
            ["resource"],
            registry=self.registry,
        )
        self.refused_namespaces = Gauge(
            f"{_PREFIX}_refused_namespaces",
            "Namespaces that are to be watched, of which something could not be listed for want of a right.",
            registry=self.registry,
        )
        self.leading = Gauge(
            f"{_PREFIX}_leading", "1 while this process is the one that works.", registry=self.registry
        )

    def show_sizes(self, sizes: Callable[[], Mapping[str, int]]) -> None:
        """Show the number of cached objects by kind, as `sizes` gives it at each scrape."""
        self.registry.register(_Sizes(sizes))


class _Sizes(Collector):
    def __init__(self, sizes: Callable[[], Mapping[str, int]]) -> None:
        self._sizes = sizes

    def describe(self) -> list[Metric]:
        """Nothing: names are not looked up at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(f"{_PREFIX}_cached_objects", "Objects in the cache.", labels=["kind"])
        for kind, size in self._sizes().items():
            family.add_metric([kind], size)
        yield family
