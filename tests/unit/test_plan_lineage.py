"""Runs that start from another run's policy."""

from typing import Any

import pytest
from plan_samples import Steps, condition, progress, run, situation

from empg.api.status import Lineage
from empg_operator.plan.lineage import Missing, lineage

FORK = {"model": {"name": None, "fromRun": {"name": "parent"}}}
STORAGE = {"storage": {"claimName": "parent-data", "path": "parent"}}


def parent(status: dict[str, Any]) -> Any:
    return run(status=status, name="parent", uid="uid-p")


@pytest.mark.parametrize(
    ("status", "policy", "known"),
    [
        (None, None, False),
        ({}, None, False),
        (STORAGE, None, False),
        (STORAGE | {"progress": progress()}, None, False),
        (STORAGE | {"progress": progress(policyVersion=0)}, None, True),
        (STORAGE | {"progress": progress(policyVersion=3)}, 4, False),
        (STORAGE | {"progress": progress(policyVersion=4)}, 4, True),
        # A parent whose learner reported nothing has a policy when it is complete.
        (STORAGE | {"conditions": [condition("Complete", "True", "Trained")]}, None, True),
        (STORAGE | {"conditions": [condition("Complete", "False", "Running")]}, None, False),
        (STORAGE | {"conditions": [condition("Failed", "True", "Diverged")]}, None, False),
    ],
)
def test_a_parent_must_have_the_policy(status: dict[str, Any] | None, policy: int | None, known: bool) -> None:
    origin = {"name": "parent"} | ({} if policy is None else {"policy": policy})
    found = lineage(
        situation(spec={"model": {"name": None, "fromRun": origin}}, parent=None if status is None else parent(status))
    )
    if known:
        assert found == Lineage(run="parent", uid="uid-p", claim_name="parent-data", path="parent", policy=policy)
    else:
        assert isinstance(found, Missing)
        assert found.reason == "ParentMissing"
        assert ("policy 4" in found.message) == (policy == 4)


def test_a_lineage_that_is_known_is_kept() -> None:
    kept = Lineage(run="parent", uid="old", claim_name="a", path="b", policy=None)
    seen = situation(spec=FORK, status={"lineage": kept.model_dump(by_alias=True, exclude_none=True)})
    assert lineage(seen) == kept


def test_other_runs_have_none() -> None:
    assert lineage(situation()) is None
    assert lineage(situation(spec={"model": {"name": None, "fromRun": {"runDir": "old/run"}}})) is None


def test_a_fork_waits_for_its_parent_and_outlives_it() -> None:
    steps = Steps(FORK)
    waiting = steps.settle()
    assert waiting.requeue_after == 30
    assert (steps.children, steps.said("Ready")) == ({}, ("False", "ParentMissing"))
    assert steps.status()["clock"]["waitingFor"] == "nothing"
    assert "activeSince" not in steps.status()
    assert steps.events() == ["ParentMissing"]
    steps.parent = parent(STORAGE | {"progress": progress(policyVersion=2)})
    steps.settle()
    assert steps.jobs() == ["demo-learner-1"]
    steps.parent = None
    before = dict(steps.status())
    steps.settle()
    assert steps.status() == before
    volumes = steps.job(1)["spec"]["template"]["spec"]["volumes"]
    assert {"name": "parent", "persistentVolumeClaim": {"claimName": "parent-data"}} in volumes
