"""Names of all series that our programs and vLLM's engine export."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import Metric

import empg_sampler.metrics  # noqa: F401 - its metrics join the default registry
from empg_operator.cache import RunKey
from empg_operator.metrics import Metrics
from empg_operator.run_metrics import RunCollector
from empg_trainer.metrics_server import GAUGES, LearnerMetrics

_SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}


def exported() -> set[str]:
    """All names, as PromQL has them."""
    return {name for metric in _metrics() for name in _series(metric)} | set(_vllm_series())


def _series(metric: Metric) -> Iterator[str]:
    return (f"{metric.name}{suffix}" for suffix in _SUFFIXES.get(metric.type, ("",)))


def _metrics() -> Iterator[Metric]:
    learner = LearnerMetrics()
    learner.observe(dict.fromkeys(GAUGES, 1.0))
    runs = RunCollector()
    runs.show(RunKey("a", "b"), {"metadata": {"uid": "u"}, "spec": {"model": {"name": "m"}}, "status": {}})
    operator = Metrics()
    operator.show_sizes(dict)
    operator.registry.register(runs)
    registries: Iterable[CollectorRegistry] = (learner.registry, operator.registry, REGISTRY)
    for registry in registries:
        yield from registry.collect()


def _vllm_series() -> Iterator[str]:
    """From vLLM's source: importing its loggers takes seconds, and constructing them an engine."""
    package = importlib.util.find_spec("vllm")
    assert package is not None
    assert package.submodule_search_locations
    source = Path(package.submodule_search_locations[0]) / "v1/metrics/loggers.py"
    kinds = {"_counter_cls": "counter", "_histogram_cls": "histogram", "_gauge_cls": "gauge"}
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in kinds:
            for keyword in node.keywords:
                if keyword.arg == "name" and isinstance(keyword.value, ast.Constant):
                    yield from _series(Metric(str(keyword.value.value), "", kinds[node.func.attr]))
