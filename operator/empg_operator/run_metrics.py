"""What Prometheus learns about the runs: built on every scrape, so that series go with their run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from empg.api.status import Phase
from empg_operator.cache import RunKey
from empg_operator.decision import Manifest

PHASES: tuple[str, ...] = get_args(Phase)
_LABELS = ("namespace", "name")


@dataclass(frozen=True)
class _Run:
    """The part of a run that is shown."""

    uid: str
    model: str
    preset: str
    phase: str
    figures: tuple[float | None, ...]


@dataclass(frozen=True)
class _Figure:
    """A gauge, and where its value is in the run's status."""

    name: str
    help: str
    path: tuple[str, ...]


_FIGURES = (
    _Figure("empg_run_attempt", "Number of the learner's newest attempt.", ("attempt",)),
    _Figure("empg_run_restarts", "Crashes of the learner so far.", ("restarts",)),
    _Figure("empg_run_samplers_desired", "Sampler pods that are wanted now.", ("samplers", "desired")),
    _Figure("empg_run_samplers_ready", "Sampler pods whose engine holds a policy.", ("samplers", "ready")),
    _Figure("empg_run_iteration", "EM iteration that the learner is at.", ("progress", "iteration")),
    _Figure("empg_run_iterations", "EM iterations that were asked for.", ("progress", "iterations")),
    _Figure("empg_run_policy_version", "Newest published policy.", ("progress", "policyVersion")),
    _Figure("empg_run_units_done", "Committed units of the open E-step.", ("progress", "unitsDone")),
    _Figure("empg_run_units", "Planned units of the open E-step.", ("progress", "unitsTotal")),
    _Figure("empg_run_reward", "Mean reward of the newest complete iteration.", ("progress", "reward")),
    _Figure("empg_run_accuracy_ratio", "Share of right answers in it.", ("progress", "accuracy")),
    _Figure(
        "empg_run_evaluation_accuracy_ratio",
        "Greedy accuracy of the newest evaluated policy on held-out problems.",
        ("progress", "evaluation"),
    ),
    _Figure("empg_run_tokens_per_second", "Tokens that samplers generate.", ("progress", "tokensPerSecond")),
)


class RunCollector(Collector):
    """Gauges of the runs that were last `show`n."""

    def __init__(self) -> None:
        self._runs: dict[RunKey, _Run] = {}

    def show(self, key: RunKey, run: Manifest) -> None:
        """Keep what is to be shown of a run."""
        spec, status = run["spec"], run.get("status", {})
        model = spec["model"]
        self._runs[key] = _Run(
            uid=run["metadata"]["uid"],
            model=model.get("name") or _origin(model.get("fromRun") or {}),
            preset=spec.get("objective", {}).get("preset", ""),
            phase=status.get("phase", PHASES[0]),
            figures=tuple(_number(status, figure.path) for figure in _FIGURES),
        )

    def hide(self, key: RunKey) -> None:
        """Show a run no longer."""
        self._runs.pop(key, None)

    def describe(self) -> list[Metric]:
        """Nothing: names are not looked up at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All series; called in the thread of the scrape."""
        runs = list(self._runs.items())
        info = GaugeMetricFamily(
            "empg_run_info", "1 for every run, with what identifies it.", labels=[*_LABELS, "uid", "model", "preset"]
        )
        phase = GaugeMetricFamily(
            "empg_run_phase", "1 for the phase a run is in, 0 for others.", labels=[*_LABELS, "phase"]
        )
        for key, run in runs:
            info.add_metric([*key, run.uid, run.model, run.preset], 1)
            for name in PHASES:
                phase.add_metric([*key, name], float(name == run.phase))
        yield info
        yield phase
        for index, figure in enumerate(_FIGURES):
            family = GaugeMetricFamily(figure.name, figure.help, labels=_LABELS)
            for key, run in runs:
                value = run.figures[index]
                if value is not None:
                    family.add_metric(list(key), value)
            yield family


def _origin(from_run: Manifest) -> str:
    return str(from_run.get("name") or from_run.get("runDir") or "")


def _number(status: Manifest, path: tuple[str, ...]) -> float | None:
    value: Any = status
    for part in path:
        value = (value or {}).get(part)
    return None if value is None else float(value)
