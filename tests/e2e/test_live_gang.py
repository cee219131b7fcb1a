"""A learner of two pods: they find each other by name, and start again, or end, together."""

from __future__ import annotations

import time

import pytest
from applied_run import START_SECONDS, AppliedRun, demo
from live_cluster import LiveCluster

NODES = 2
RESTART_SECONDS = 90.0


@pytest.fixture(scope="module")
def run(release: LiveCluster, namespace: str) -> AppliedRun:
    """A run that trains on two pods."""
    run = AppliedRun(release, namespace, demo("gang", em={"iterations": 200}, learner={"nodes": NODES}))
    run.until_learned(1, seconds=START_SECONDS * 2)
    return run


def test_its_pods_meet_by_name(run: AppliedRun) -> None:
    assert len(run.running("learner")) == NODES
    environments = [
        {entry["name"]: entry.get("value", "") for entry in pod["spec"]["containers"][0]["env"]}
        for pod in run.pods("learner")
    ]
    assert len({environment["MASTER_ADDR"] for environment in environments}) == 1
    assert environments[0]["MASTER_ADDR"].startswith("gang-learner-1-0.")


def test_one_deleted_pod_starts_both_again(run: AppliedRun) -> None:
    before = run.running("learner")
    run.delete_pod(before[1])
    _goes_on(run, before, attempt=2)


def test_an_eviction_costs_no_restart(run: AppliedRun) -> None:
    before, restarts = run.running("learner"), run.status()["restarts"]
    path = f"/api/v1/namespaces/{run.namespace}/pods/{before[0]}/eviction"
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": before[0]}}
    run.cluster.rest.create(path, eviction)
    _goes_on(run, before, attempt=3)
    assert run.status()["restarts"] == restarts


def test_it_fails_when_one_rank_says_that_training_diverged(run: AppliedRun) -> None:
    """Only rank 0 looks at the guard; the other's collective operations fail with it."""
    run.kubectl(
        "patch", "empgrun", run.name, "--type=merge", "-p", '{"spec": {"guards": {"maxLogprobMismatch": 1e-30}}}'
    )
    run.kubectl("wait", "--for=condition=Failed", f"empgrun/{run.name}", "--timeout=110s")
    failed = run.condition("Failed")
    assert failed["reason"] == "Diverged"
    assert "guards.maxLogprobMismatch" in failed["message"]
    assert run.columns()["PHASE"] == "Failed"
    assert run.status()["attempt"] == 3
    run.until(lambda: not run.pods("sampler"), "end of the samplers", 30)  # they are deleted a moment later


def _goes_on(run: AppliedRun, before: list[str], attempt: int) -> None:
    """The next attempt runs with new pods and goes on after the last iteration that was learned."""
    ended, sealed = time.monotonic(), run.seals()
    run.until(lambda: len(set(run.running("learner")) - set(before)) == NODES, "new learner pods", RESTART_SECONDS)
    started = time.monotonic()
    assert not set(run.running("learner")) & set(before)
    learned = len(run.metrics())
    run.until_learned(learned + 1)
    print(
        f"learner of {NODES}: pods run after {started - ended:.0f} s, iteration after {time.monotonic() - ended:.0f} s"
    )
    assert run.status()["attempt"] == attempt
    seals = run.seals()
    assert {iteration: seals[iteration] for iteration in sealed} == sealed
    iterations = [row["iteration"] for row in run.metrics()]
    assert iterations == list(range(len(iterations)))
