"""Deadlines of a run: each ends it with its own reason, and a run that holds devices in vain gives them back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pytest
from pod_status import Pod
from run_view import RunView
from simulated_node import Start
from stage import SECONDS, Stage
from waiting import eventually

from empg_operator.plan.holding import PAUSE_SECONDS, pause

IMPOSSIBLE = {"spec": {"containers": [{"name": "learner", "resources": {"requests": {"cpu": "5000"}}}]}}
HOLDS = 8
"""Runs that give back what they hold; the one with the shortest pause is followed to its next attempt."""
LATE: dict[str, dict[str, Any]] = {
    "pending": {"deadlines.pendingSeconds": 2, "learner.podTemplate": IMPOSSIBLE},
    "sampling": {"deadlines.samplingSeconds": 2},
    "learning": {"deadlines.learningSeconds": 2},
    "rolling": {"deadlines.rollingSeconds": 2},
    "whole": {"deadlines.runSeconds": 3},
}


def starts(pod: Pod) -> Start:
    """The second pod of a gang is never more than created."""
    held = pod["metadata"]["labels"]["empg.dev/run"].startswith("half")
    second = pod["metadata"].get("annotations", {}).get("batch.kubernetes.io/job-completion-index") == "1"
    return Start.HOLD if held and second and pod["metadata"]["labels"]["empg.dev/attempt"] == "1" else Start.RUN


@pytest.fixture(scope="module")
def halves(stage: Stage) -> list[RunView]:
    stage.node.start_as = starts
    changes = {"learner.nodes": 2, "deadlines.holdSeconds": 2}
    return [stage.create(f"half-{number}", changes) for number in range(HOLDS)]


@pytest.fixture(scope="module")
def runs(stage: Stage, halves: list[RunView]) -> Mapping[str, RunView]:
    """One run for each deadline; they wait side by side."""
    views = {name: stage.create(name, changes) for name, changes in LATE.items()}
    for name in ("sampling", "learning", "rolling"):
        stage.learners(views[name])
    views["sampling"].report(phase="sampling", unitsTotal=8)
    views["learning"].report(phase="publishing")
    views["rolling"].report(
        iteration=1,
        policyVersion=2,
        samplerVersions=[{"policy": 1, "samplers": 1}],
        laggards=[stage.samplers(views["rolling"])[0]["metadata"]["name"]],
    )
    return views


@pytest.mark.parametrize(
    ("name", "reason", "what"),
    [
        ("pending", "PendingDeadlineExceeded", "deadlines.pendingSeconds (2)"),
        ("sampling", "SamplingDeadlineExceeded", "The E-step of iteration 0 took longer"),
        ("learning", "LearningDeadlineExceeded", "The M-step of iteration 0 took longer"),
        ("rolling", "RollDeadlineExceeded", "deadlines.rollingSeconds (2)"),
        ("whole", "RunDeadlineExceeded", "deadlines.runSeconds (3)"),
    ],
)
def test_a_deadline_that_has_passed_ends_the_run(
    stage: Stage, runs: Mapping[str, RunView], name: str, reason: str, what: str
) -> None:
    view = runs[name]
    view.until_phase("Failed", SECONDS)
    failed = view.condition("Failed")
    assert failed["reason"] == reason
    assert what in failed["message"]
    stage.until_no_pods(view)
    eventually(lambda: not view.child("Job", f"{name}-learner-1"), "end of the Job that goes on", SECONDS)
    deployment = view.child("Deployment", f"{name}-sampler")
    assert deployment is None or deployment["spec"]["replicas"] == 0
    told = eventually(lambda: view.told("DeadlineExceeded"), "event", SECONDS)
    assert told[0].startswith(f"{reason}: ")
    assert view.status()["restarts"] == 0


def test_a_run_that_holds_half_of_what_it_needs_gives_it_back_and_tries_again(
    stage: Stage, runs: Mapping[str, RunView], halves: list[RunView]
) -> None:
    def wait(view: RunView) -> float:
        return pause(view.created["metadata"]["uid"], 1)

    view = min(halves, key=wait)
    view.until_reason("Ready", "Released", SECONDS)
    assert "holdSeconds" in view.until_told("Released")[0]
    status = view.status()
    stage.until_no_pods(view)
    eventually(lambda: not view.child("Job", f"{view.name}-learner-1"), "end of the Job", SECONDS)
    least, most = PAUSE_SECONDS
    # The pause begins when all is given back; the status has been written by then.
    begins = datetime.fromisoformat(view.condition("Ready")["lastTransitionTime"]).timestamp()
    ends = datetime.fromisoformat(status["nextAttemptTime"]).timestamp()
    assert begins < ends <= begins + most + SECONDS
    view.change({"deadlines": {"holdSeconds": 900}})  # the next attempt is not to be released for a slow machine
    job = view.until_attempt(2, most + SECONDS)
    assert datetime.fromisoformat(job["metadata"]["creationTimestamp"]).timestamp() >= ends
    stage.learners(view, 2)
    stage.samplers(view)
    view.until_condition("Ready", "True", SECONDS)
    status = view.status()
    assert (status["attempt"], status["restarts"]) == (2, 0)
    assert least <= wait(view) <= most
    stage.until_no_orphans()
