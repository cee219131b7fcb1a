"""Children that the API server refuses: the run says so, and what can't be created is tried again later."""

from __future__ import annotations

from typing import Any

import pytest
from plan_samples import NOW, Steps

from empg_operator.decision import Blocked
from empg_operator.plan import plan

WHY = "Job demo-learner-1: exceeded quota: none. Change the run, or the policy or quota that refuses it."


def refused(kind: str, name: str) -> tuple[Steps, str]:
    """A run of which this was refused when it was to be created, before a pass; and the name of the object."""
    steps = Steps()
    while not any(each["kind"] == kind and each["metadata"]["name"].startswith(name) for each in steps.step().create):
        pass
    [place] = [place for place in steps.children if place[0] == kind and place[1].startswith(name)]
    steps = Steps()
    steps.blocked = {place: Blocked(WHY, NOW + 30)}
    return steps, place[1]


def test_a_job_that_is_refused_is_told_and_created_later() -> None:
    steps, _ = refused("Job", "demo-learner-1")
    assert steps.settle().requeue_after == 30
    assert not steps.jobs()
    assert steps.status()["attempt"] == 0
    for kind in ("Accepted", "LearnerReady", "Ready"):
        assert steps.said(kind) == ("False", "ApplyFailed")
        assert WHY in str(steps.status()["conditions"])
    assert "AttemptStarted" not in steps.events()
    steps.now = NOW + 30
    assert [each["kind"] for each in steps.step().create] == ["Job"], "it is tried again"
    steps.blocked = {}
    steps.settle()
    assert steps.said("Accepted") == ("True", "Accepted")
    assert steps.said("LearnerReady") == ("False", "Starting")
    assert steps.events().count("AttemptStarted") == 1


def test_without_a_revision_no_pods_are_made_of_it() -> None:
    steps, name = refused("ControllerRevision", "demo-learner-")
    assert steps.settle().requeue_after == 30
    assert ("ControllerRevision", name) not in steps.children
    assert not steps.jobs()
    assert steps.said("Accepted") == ("False", "ApplyFailed")
    steps.now, steps.blocked = NOW + 30, {}
    steps.settle()
    assert steps.jobs() == ["demo-learner-1"]


def test_a_child_that_is_refused_does_not_keep_the_run_waiting() -> None:
    steps = Steps()
    steps.blocked = {("Service", "demo-learner"): Blocked("Service demo-learner: it exists.", NOW + 30)}
    steps.settle()
    assert steps.jobs() == ["demo-learner-1"]
    assert steps.said("Accepted") == ("False", "ApplyFailed")
    steps.replace_job(1, ready=1)
    steps.settle()
    assert steps.said("LearnerReady") == ("True", "Running")


def test_the_attempt_after_a_crash_may_be_refused() -> None:
    steps = Steps({"restarts": {"backoffSeconds": 0}})
    steps.settle()
    steps.blocked = {("Job", "demo-learner-2"): Blocked(WHY, NOW + 30)}
    steps.replace_job(1, failed="x")
    steps.settle()
    assert steps.jobs() == ["demo-learner-1"]
    assert steps.said("LearnerReady") == ("False", "ApplyFailed")
    assert steps.status()["restarts"] == 1
    steps.now, steps.blocked = NOW + 30, {}
    steps.settle()
    assert steps.jobs()[-1] == "demo-learner-2"
    assert steps.status()["restarts"] == 1


@pytest.mark.parametrize(
    ("kind", "name", "edit"),
    [
        ("PersistentVolumeClaim", "demo-data", {"storage": {"size": "200Gi"}}),
        ("ConfigMap", "demo-run", {"optimizer": {"learningRate": 1e-5}}),
    ],
)
def test_what_is_refused_is_not_applied_again_at_once(kind: str, name: str, edit: dict[str, Any]) -> None:
    steps = Steps()
    steps.settle()
    steps.children["PersistentVolumeClaim", "demo-data"]["status"] = {"phase": "Bound"}
    steps.edit(edit)
    wanted = next(each for each in plan(steps.look(), steps.settings, steps.now).apply if each["kind"] == kind)
    steps.blocked = {(kind, name): Blocked("resize: no.", NOW + 30, wanted)}
    steps.plans.clear()
    assert steps.settle().requeue_after == 20, "pods are looked after before"
    assert kind not in [each["kind"] for done in steps.plans for each in done.apply]
    assert steps.said("Accepted") == ("False", "ApplyFailed")
    steps.now = NOW + 29
    assert not steps.step().apply
    assert steps.settle().requeue_after == 1
    steps.now = NOW + 30
    assert plan(steps.look(), steps.settings, steps.now).apply == (wanted,), "it is tried again"


def test_something_else_is_applied_at_once() -> None:
    steps = Steps()
    steps.settle()
    steps.edit({"optimizer": {"learningRate": 1e-5}})
    [refused] = plan(steps.look(), steps.settings, steps.now).apply
    steps.blocked = {("ConfigMap", "demo-run"): Blocked("no.", NOW + 30, refused)}
    assert not steps.step().apply
    steps.edit({"optimizer": {"learningRate": 2e-5}})
    [wanted] = steps.step().apply
    assert (wanted["kind"], wanted != refused) == ("ConfigMap", True)


def test_an_attempt_after_a_crash_that_is_never_allowed_ends_by_the_deadline() -> None:
    steps = Steps({"restarts": {"backoffSeconds": 10}, "deadlines": {"pendingSeconds": 2000}})
    steps.settle()
    steps.replace_job(1, failed="x")
    steps.settle()
    assert steps.status()["phase"] == "Restarting"
    for seconds in (10, 1000, 2009):
        steps.now = NOW + seconds
        steps.blocked = {("Job", "demo-learner-2"): Blocked(WHY, steps.now + 30)}
        steps.settle()
        assert steps.status()["phase"] != "Failed"
    steps.now = NOW + 2010
    steps.settle()
    assert steps.said("Failed") == ("True", "PendingDeadlineExceeded")
    assert WHY.rstrip(".") in next(each for each in steps.status()["conditions"] if each["type"] == "Failed")["message"]
