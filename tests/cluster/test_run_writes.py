"""How much a run asks of the API server: few writes per iteration, none when nothing happens, and a small object."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import pytest
from run_view import RunView
from stage import SECONDS, Stage
from waiting import eventually

from empg_trainer.report import LAGGARDS, RECENT, VERSIONS
from hack.controlplane.access import read_calls
from hack.rest import Document

ITERATIONS = 5
WRITES_PER_ITERATION = 10
STEADY_SECONDS = [60.0, pytest.param(300.0, marks=pytest.mark.exhaustive)]
"""The latter is longer than any interval at which the operator looks or lists anew."""
BYTES = 10 * 1024
PHASES = {"sampling": "Sampling", "learning": "Learning", "publishing": "Learning"}
"""What the learner reports in each iteration, and what the run then says."""


@pytest.fixture
def audit_log(stage: Stage) -> Path:
    if stage.cluster.audit_log is None:
        pytest.skip("the cluster of EMPG_TEST_KUBECONFIG shows no audit log")
    return stage.cluster.audit_log


def writes(stage: Stage, log: Path, since: int) -> Counter[tuple[str, str, str]]:
    """What operator and learner (the test) wrote in the namespace since the audit log had this size."""
    return Counter(
        (call.agent, call.verb, call.resource)
        for call in read_calls(log, since)
        if call.writes and call.namespace == stage.namespace and call.agent in ("empg-operator", "test")
    )


def iterate(stage: Stage, view: RunView, replicas: int) -> None:
    """Five iterations, as learner and samplers report them."""
    for iteration in range(ITERATIONS):
        for phase, shown in PHASES.items():
            published = iteration + (phase == "publishing")
            view.report(
                iteration=iteration,
                iterations=2 * ITERATIONS,
                phase=phase,
                policyVersion=published,
                samplerVersions=[{"policy": published, "samplers": replicas}],
                recent=[{"iteration": past, "reward": 0.5} for past in range(max(0, iteration - 5), iteration)],
            )
            eventually(lambda shown=shown: view.status()["phase"] == shown, f"phase {shown}", SECONDS)  # type: ignore[misc]
        if view.created["spec"]["sampler"].get("rollStrategy") == "RollingUpdate":
            eventually(lambda: "rollStarted" not in view.status(), "end of the roll", SECONDS)


@pytest.mark.parametrize("strategy", ["InPlace", "RollingUpdate"])
def test_an_iteration_takes_few_writes(stage: Stage, audit_log: Path, strategy: str) -> None:
    name = strategy.lower()
    view, _ = stage.start(name, {"sampler.rollStrategy": strategy, "sampler.replicas": 3, "em.iterations": 99})
    view.report(iterations=2 * ITERATIONS, policyVersion=0, samplerVersions=[{"policy": 0, "samplers": 3}])
    view.until_condition("Ready", "True", SECONDS)
    view.until_phase("Sampling", SECONDS)
    time.sleep(3)
    began = audit_log.stat().st_size
    iterate(stage, view, replicas=3)
    made = writes(stage, audit_log, began)
    print(f"{strategy}: {sum(made.values()) / ITERATIONS:g} writes per iteration: {dict(made)}")
    assert made["test", "patch", "empgruns/status"] == len(PHASES) * ITERATIONS
    assert sum(made.values()) <= WRITES_PER_ITERATION * ITERATIONS, made


@pytest.mark.parametrize("seconds", STEADY_SECONDS)
def test_a_run_in_which_nothing_happens_is_not_written_to(stage: Stage, audit_log: Path, seconds: float) -> None:
    """Although everything is listed again and again."""
    stage.start(f"steady-{seconds:g}")
    waiting = stage.create(
        f"waits-{seconds:g}", {"learner.podTemplate": {"spec": {"schedulingGates": [{"name": "example.com/gate"}]}}}
    )
    waiting.until_reason("Ready", "SchedulingGated", SECONDS)
    stopped = stage.create(f"stopped-{seconds:g}", {"suspend": True})
    stopped.until_phase("Suspended", SECONDS)
    time.sleep(5)
    began = audit_log.stat().st_size
    time.sleep(seconds)
    assert writes(stage, audit_log, began) == {}


def test_the_whole_object_is_small(stage: Stage) -> None:
    """With all that learner, samplers and operator have to say at once."""
    name = "a-run-with-a-name-of-forty-six-characters-as-m"
    view, learner = stage.start(
        name, {"sampler.replicas": 20, "restarts.backoffSeconds": 3600, "restarts.maxBackoffSeconds": 3600}
    )
    samplers = [pod["metadata"]["name"] for pod in stage.samplers(view, 20)]
    figures = {"reward": 0.123456, "accuracy": 0.123456, "evaluation": 0.123456, "kl": 0.00123456}
    view.report(
        iteration=99_999,
        iterations=100_000,
        policyVersion=99_999,
        unitsDone=123_456,
        unitsTotal=123_456,
        tokensPerSecond=123456.0,
        staleness=1.23456,
        samplerVersions=[{"policy": 99_999 - number, "samplers": 3} for number in range(VERSIONS)],
        laggards=samplers[:LAGGARDS],
        recent=[{"iteration": 99_994 + n, **figures, "entropy": 1.23456, "seconds": 1234.56} for n in range(RECENT)],
        **figures,
    )
    view.until_phase("Sampling", SECONDS)
    stage.node.finish(learner, exit_code=1, message="RuntimeError: " + "no memory at all; " * 60)
    view.until_reason("LearnerReady", "Crashed", SECONDS)
    eventually(lambda: view.status()["samplers"]["ready"] == 20, "count of the samplers", SECONDS)
    whole = view.document()
    assert len(view.condition("LearnerReady")["message"]) > 400
    assert len(whole["status"]["recent"]) == RECENT
    assert len(whole["status"]["progress"]["laggards"]) == LAGGARDS
    parts = {key: size(whole[key]) for key in ("metadata", "spec", "status")}
    print(f"{size(whole)} bytes: {parts}")
    # With every default in it, and with the record that the API server keeps of who made it.
    assert size(whole) <= BYTES, parts


def size(document: Document) -> int:
    return len(json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode())
