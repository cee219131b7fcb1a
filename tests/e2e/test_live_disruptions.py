"""Pods of a run are deleted in the middle of their work: nothing is lost, nothing is done twice."""

from __future__ import annotations

import json
import time

import pytest
from applied_run import START_SECONDS, AppliedRun, demo
from live_cluster import LiveCluster, until

from empg.rundir import keys
from empg.rundir.claims import Claim
from empg.rundir.plans import read_plans
from empg.rundir.records import read

ITERATIONS = 16
RESTART_SECONDS = 60.0
"""From the end of a pod to its successor; the back-off is shorter."""


@pytest.fixture(scope="module")
def run(release: LiveCluster, namespace: str) -> AppliedRun:
    """A run that trains, with units that take a sampler a moment."""
    changes = {"em": {"iterations": ITERATIONS, "promptsPerUnit": 16}, "sampler": {"leaseSeconds": 10}}
    run = AppliedRun(release, namespace, demo("disrupted", **changes))
    run.until_learned(1)
    return run


def test_a_sampler_is_replaced_in_the_middle_of_a_unit(run: AppliedRun) -> None:
    def working() -> tuple[str, str, str] | None:
        """(iteration's key, unit and attempt, pod) of a claim that has no commit."""
        store = run.store()
        top = keys.iteration_dir("rollout", max(int(name) for name in store.children("rollout")))
        done = {name.removesuffix(".parquet") for name in store.children(f"{top}/units")}
        for name in set(store.children(f"{top}/claims")) - done:
            return top, name, read(store, f"{top}/claims/{name}", Claim).sampler
        return None

    top, name, pod = until(working, "claim without a commit", 60)
    run.delete_pod(pod, grace_seconds=1)
    deleted = time.monotonic()
    run.until(lambda: set(run.running("sampler")) - {pod}, "new sampler", RESTART_SECONDS)
    started = time.monotonic()
    learned = len(run.metrics())
    run.until_learned(learned + 1, seconds=START_SECONDS)
    print(f"sampler: next pod runs after {started - deleted:.0f} s, next iteration after {_since(deleted)}")
    unit = name.partition(".")[0]
    sealed = {one.unit for one in run.seals()[int(top.rpartition("/")[2])].units}
    assert unit in sealed
    assert run.status()["attempt"] == 1


def test_a_learner_goes_on_after_it_was_deleted_in_the_middle_of_a_step(run: AppliedRun) -> None:
    def learning() -> bool:
        record = json.loads((run.directory() / keys.PROGRESS).read_text())["record"]
        return record["phase"] == "learning"

    [pod] = run.running("learner")
    sealed = run.seals()
    published = _manifests(run)
    until(learning, "step", 60)
    run.delete_pod(pod)
    deleted = time.monotonic()
    run.until(lambda: set(run.running("learner")) - {pod}, "new learner", RESTART_SECONDS)
    started = time.monotonic()
    learned = len(run.metrics())
    run.until_learned(learned + 1)
    print(f"learner: next pod runs after {started - deleted:.0f} s, next iteration after {_since(deleted)}")
    assert (run.status()["attempt"], run.status()["restarts"]) == (2, 0)
    seals = run.seals()
    assert {iteration: seals[iteration] for iteration in sealed} == sealed
    now = _manifests(run)
    kept = published.keys() & now.keys()
    assert kept
    assert all(now[version] == published[version] for version in kept)


def test_it_completes_with_every_unit_once(run: AppliedRun) -> None:
    run.wait("Complete", seconds=300)
    seals, store = run.seals(), run.store()
    assert sorted(seals) == list(range(ITERATIONS))
    for iteration, seal in seals.items():
        planned = [unit.name for plan in read_plans(store, "rollout", iteration) for unit in plan.units]
        assert [one.unit for one in seal.units] == planned
        assert not seal.void
    assert [row["iteration"] for row in run.metrics()] == list(range(ITERATIONS))
    assert run.policies()[-1] == ITERATIONS


def _manifests(run: AppliedRun) -> dict[int, str]:
    """What the manifests of the policies say that are there, by version."""
    store = run.store()
    found = {version: store.root / keys.group_manifest(keys.policy_prefix(version)) for version in run.policies()}
    return {version: path.read_text() for version, path in found.items()}


def _since(moment: float) -> str:
    return f"{time.monotonic() - moment:.0f} s"
