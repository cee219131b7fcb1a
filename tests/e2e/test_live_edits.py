"""A run is scaled, suspended and edited while it trains."""

from __future__ import annotations

import json
from typing import Any

import pytest
from applied_run import START_SECONDS, AppliedRun, demo
from live_cluster import LiveCluster

from empg.rundir.heartbeat import read_records
from hack.controlplane.access import CommandError

SAMPLERS = 3


@pytest.fixture(scope="module")
def run(release: LiveCluster, namespace: str) -> AppliedRun:
    """A run that trains for long, unless it is edited."""
    run = AppliedRun(release, namespace, demo("edited", em={"iterations": 2000}))
    run.until_learned(1)
    return run


def edit(run: AppliedRun, **spec: Any) -> None:
    run.kubectl("patch", "empgrun", run.name, "--type=merge", "-p", json.dumps({"spec": spec}))


def test_an_edit_of_the_model_is_refused(run: AppliedRun) -> None:
    with pytest.raises(CommandError, match="immutable"):
        edit(run, model={"name": "another/model"})
    assert run.document()["spec"]["model"]["name"].endswith("base-model")


def test_kubectl_scale_gives_it_more_samplers(run: AppliedRun) -> None:
    run.kubectl("scale", "empgrun", run.name, f"--replicas={SAMPLERS}")
    run.until(lambda: run.columns()["SAMPLERS"] == f"{SAMPLERS}/{SAMPLERS}", "samplers", START_SECONDS)
    pods = set(run.running("sampler"))
    assert len(pods) == SAMPLERS

    def at_work() -> bool:
        newest = len(run.metrics())
        records = {record.id: record.policy for record in read_records(run.store())}
        return all((records.get(pod) or 0) >= newest - 1 for pod in pods)

    run.until(at_work, "samplers with the newest policy", 60)
    assert run.status()["attempt"] == 1


def test_it_goes_on_where_it_was_after_a_suspension(run: AppliedRun) -> None:
    edit(run, suspend=True, sampler={"replicas": 1})
    run.until(lambda: not run.pods("sampler") and not run.pods("learner"), "end of the pods", 90)
    run.until(lambda: run.columns()["PHASE"] == "Suspended", "phase", 30)
    learned = len(run.metrics())
    manifest = (run.directory() / "policy" / f"{learned:06d}" / "MANIFEST.json").read_bytes()
    edit(run, suspend=False)
    run.until_learned(learned + 1)
    assert (run.directory() / "policy" / f"{learned:06d}" / "MANIFEST.json").read_bytes() == manifest
    status = run.status()
    assert (status["attempt"], status["restarts"]) == (2, 0)
    iterations = [row["iteration"] for row in run.metrics()]
    assert iterations == list(range(len(iterations)))


def test_a_live_edit_of_iterations_ends_it_there(run: AppliedRun) -> None:
    iterations = len(run.metrics()) + 6  # some are planned
    edit(run, em={"iterations": iterations})
    run.wait("Complete", seconds=180)  # pods hear of an edit within a minute or so, when more may have been made
    done = len(run.metrics())
    assert done >= iterations
    assert run.columns()["ITERATION"] == run.columns()["POLICY"] == str(done)
    assert run.condition("Complete")["message"].startswith(f"{done} iterations are done")
    assert run.status()["attempt"] == 2
    assert sorted(run.seals()) == list(range(done))
