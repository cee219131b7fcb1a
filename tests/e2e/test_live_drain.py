"""A node is drained, as for an update of its kernel: all pods are evicted, and the run goes on when there is room."""

from __future__ import annotations

import pytest
from applied_run import START_SECONDS, AppliedRun, demo
from live_cluster import LiveCluster

ITERATIONS = 12


def test_a_run_outlives_the_drain_of_its_node(release: LiveCluster, namespace: str) -> None:
    if release.directory is None:
        pytest.skip("nodes of a cluster that others use are not drained")
    run = AppliedRun(release, namespace, demo("drained", em={"iterations": ITERATIONS}))
    run.until_learned(2)
    sealed = run.seals()
    [node] = release.access.kubectl("get", "nodes", "-o", "name").split()
    try:
        release.access.kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=100s")
        assert not run.running("learner") + run.running("sampler")
    finally:
        release.access.kubectl("uncordon", node)
    run.until_learned(len(run.metrics()) + 1, seconds=START_SECONDS)
    assert run.status()["restarts"] == 0
    assert {iteration: run.seals()[iteration] for iteration in sealed} == sealed
    run.wait("Complete", seconds=300)
    assert [row["iteration"] for row in run.metrics()] == list(range(ITERATIONS))
