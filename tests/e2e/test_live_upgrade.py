"""The release is upgraded, removed and installed again while a run trains, which goes on all the time."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from applied_run import START_SECONDS, AppliedRun, demo
from live_cluster import ROOT, LiveCluster, until

from empg.rundir.final import read_final
from hack.controlplane.access import Access
from hack.rest import Document

WHERE = ("empg", "--namespace", "empg-system")
CHART = str(ROOT / "charts/empg")
MORE = 20
"""Iterations that are left when the operator goes; a pod hears of the edit within a minute or so."""


@pytest.fixture(scope="module")
def values(release: LiveCluster) -> Iterator[str]:
    """Values of the release, which it has again in the end."""
    access = release.access
    values = access.helm("get", "values", *WHERE, "--output", "json")
    yield values
    access.helm("upgrade", "--install", WHERE[0], CHART, *WHERE[1:], "--values", "-", input=values)
    _rolled_out(access)


@pytest.fixture(scope="module")
def run(release: LiveCluster, values: str, namespace: str) -> AppliedRun:
    """A run that trains."""
    run = AppliedRun(release, namespace, demo("lasting", em={"iterations": 2000}))
    run.until_learned(1)
    return run


def test_an_upgrade_rolls_no_pod_of_a_run(run: AppliedRun, values: str) -> None:
    access, before, learned = run.cluster.access, run.containers(), len(run.metrics())
    changed = {**(json.loads(values) or {}), "logLevel": "DEBUG"}
    access.helm("upgrade", WHERE[0], CHART, *WHERE[1:], "--values", "-", input=json.dumps(changed))
    _rolled_out(access)
    run.until_learned(learned + 2)
    progress = len(run.metrics())
    run.until(lambda: run.status()["progress"]["iteration"] >= progress, "progress in the status", 60)
    assert run.containers() == before
    assert run.status()["attempt"] == 1


def test_runs_outlive_the_release_and_train_to_their_end(run: AppliedRun) -> None:
    access, before = run.cluster.access, run.containers()
    iterations = len(run.metrics()) + MORE
    edit = {"spec": {"em": {"iterations": iterations}}}
    run.kubectl("patch", "empgrun", run.name, "--type=merge", "-p", json.dumps(edit))
    run.until(lambda: _told(run)["spec"]["em"]["iterations"] == iterations, "manifest for the pods", 30)
    access.helm("uninstall", *WHERE, "--wait")
    operator = ("get", "pods", "-n", "empg-system", "-l", "app.kubernetes.io/name=empg", "-o", "name")
    until(lambda: not access.kubectl(*operator), "end of the operator", 60)
    assert access.kubectl("get", "crd", "empgruns.empg.dev", "-o", "name")
    assert run.containers() == before
    # Without an operator the files tell the end, and the Job; what the run's conditions say is old.
    final = run.until(lambda: read_final(run.store()), "end of the training", START_SECONDS + 10 * MORE)
    assert final.iterations >= iterations  # more where the edit came late
    run.kubectl("wait", "--for=condition=Complete", f"job/{run.name}-learner-1", "--timeout=90s")
    assert run.condition("Complete")["status"] == "False"


def test_the_next_release_takes_them_up(run: AppliedRun, values: str) -> None:
    access = run.cluster.access
    access.helm("install", WHERE[0], CHART, *WHERE[1:], "--values", "-", input=values)
    _rolled_out(access)
    run.wait("Complete", seconds=60)
    run.until(lambda: run.columns()["SAMPLERS"] == "0/0", "end of the samplers", 90)
    assert run.columns()["PHASE"] == "Complete"
    assert run.columns()["ITERATION"] == run.columns()["POLICY"] == str(len(run.metrics()))
    assert run.status()["attempt"] == 1


def _told(run: AppliedRun) -> Document:
    """The manifest that the pods of a run read."""
    path = f"/api/v1/namespaces/{run.namespace}/configmaps/{run.name}-run"
    found: Document = json.loads(run.cluster.rest.get(path)["data"]["run.json"])
    return found


def _rolled_out(access: Access) -> None:
    access.kubectl("rollout", "status", "deployment/empg", "-n", "empg-system", "--timeout=100s")
