from __future__ import annotations

from typing import Any, get_args

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from empg_operator.cache import RunKey
from empg_operator.metrics import Metrics, Result
from empg_operator.run_metrics import PHASES, RunCollector

KEY = RunKey("team", "demo")
LABELS = {"namespace": "team", "name": "demo"}


def _run(**status: Any) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "team", "name": "demo", "uid": "u-1"},
        "spec": {"model": {"name": "Qwen/Qwen2.5-1.5B"}, "objective": {"preset": "empg"}},
        "status": status,
    }


def _registry() -> tuple[CollectorRegistry, RunCollector]:
    registry, runs = CollectorRegistry(), RunCollector()
    registry.register(runs)
    return registry, runs


def _series(registry: CollectorRegistry) -> set[str]:
    text = generate_latest(registry).decode()
    return {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}


def test_a_run_is_shown_with_what_its_status_says() -> None:
    registry, runs = _registry()
    runs.show(
        KEY,
        _run(
            phase="Learning",
            restarts=2,
            samplers={"desired": 4, "ready": 3},
            progress={"iteration": 7, "iterations": 100, "policyVersion": 6, "reward": 0.25, "evaluation": None},
        ),
    )
    value = registry.get_sample_value
    assert value("empg_run_info", {**LABELS, "uid": "u-1", "model": "Qwen/Qwen2.5-1.5B", "preset": "empg"}) == 1
    assert value("empg_run_iteration", LABELS) == 7
    assert value("empg_run_policy_version", LABELS) == 6
    assert value("empg_run_reward", LABELS) == 0.25
    assert value("empg_run_samplers_ready", LABELS) == 3
    assert value("empg_run_restarts", LABELS) == 2
    assert value("empg_run_evaluation_accuracy_ratio", LABELS) is None, "what is not known is not shown as 0"
    phases = {phase: value("empg_run_phase", {**LABELS, "phase": phase}) for phase in PHASES}
    assert phases == {phase: float(phase == "Learning") for phase in PHASES}


def test_a_run_without_status_or_model_name_is_shown() -> None:
    registry, runs = _registry()
    run = _run()
    del run["status"]
    run["spec"]["model"] = {"fromRun": {"name": "parent"}}
    runs.show(KEY, run)
    labels = {**LABELS, "uid": "u-1", "model": "parent", "preset": "empg"}
    assert registry.get_sample_value("empg_run_info", labels) == 1
    assert registry.get_sample_value("empg_run_phase", {**LABELS, "phase": "Pending"}) == 1


def test_series_go_with_their_run() -> None:
    registry, runs = _registry()
    runs.show(KEY, _run(phase="Learning", attempt=1))
    assert {"empg_run_info", "empg_run_phase", "empg_run_attempt"} <= _series(registry)
    runs.hide(KEY)
    assert _series(registry) == set()
    runs.hide(KEY)


def test_series_that_lose_their_value_go() -> None:
    registry, runs = _registry()
    runs.show(KEY, _run(progress={"reward": 0.5}))
    runs.show(KEY, _run())
    assert registry.get_sample_value("empg_run_reward", LABELS) is None


def test_names_follow_the_conventions() -> None:
    metrics = Metrics()
    runs = RunCollector()
    metrics.registry.register(runs)
    families = [family for family in metrics.registry.collect() if not family.name.startswith("process_")]
    assert len(families) > 20
    for family in families:
        assert family.name.startswith(("empg_operator_", "empg_run_"))
        assert family.documentation.endswith("."), family.name
        assert not family.name.endswith("_total"), "prometheus_client adds it to counters, gauges have none"


def test_results_are_counted_from_zero() -> None:
    metrics = Metrics()
    (family,) = [family for family in metrics.registry.collect() if family.name == "empg_operator_reconcile"]
    counted = {sample.labels["result"]: sample.value for sample in family.samples if sample.name.endswith("_total")}
    assert counted == dict.fromkeys(get_args(Result), 0)
    assert [result for result in counted if result not in family.documentation] == []
