"""Runs whose learner waits in a queue: the queue alone says when its Job goes, and where."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest
from job_queue import FLAVOUR, LABEL, JobQueue
from run_view import RunView
from stage import SECONDS, Stage
from waiting import eventually

from hack.controlplane.access import read_calls
from hack.rest import ApiError, Document

PENDING_SECONDS = 15.0
"""Time that a run waits for pods that nobody holds back."""
QUEUED = {"queueName": "team", "deadlines.pendingSeconds": PENDING_SECONDS}


@pytest.fixture(scope="module")
def queue(stage: Stage) -> Iterator[JobQueue]:
    with JobQueue(stage.cluster.kubeconfig, stage.namespace) as queue:
        yield queue


def until_queued(stage: Stage, view: RunView, attempt: int = 1) -> Document:
    """Wait until a run waits in the queue with nothing in its hands; the Job."""
    view.until_attempt(attempt)
    view.until_phase("Queued", SECONDS)
    stage.until_no_pods(view)
    return view.until_attempt(attempt)


def writers(job: Document, field: str) -> set[str]:
    """Field managers of a field of a Job's spec."""
    return {
        entry["manager"]
        for entry in job["metadata"]["managedFields"]
        if f"f:{field}" in entry["fieldsV1"].get("f:spec", {})
    }


def admitted(stage: Stage, queue: JobQueue, view: RunView, attempt: int = 1) -> None:
    eventually(lambda: _admit(queue, f"{view.name}-learner-{attempt}"), "admission", SECONDS)
    stage.learners(view)
    stage.samplers(view)


def test_a_queue_says_when_and_where_the_learner_runs(stage: Stage, queue: JobQueue) -> None:
    began = stage.cluster.audit_log.stat().st_size if stage.cluster.audit_log else 0
    view = stage.create("waits", QUEUED)
    job = until_queued(stage, view)
    assert job["metadata"]["labels"][LABEL] == "team"
    assert "Queue 'team' has not admitted the learner yet" in view.condition("Ready")["message"]
    with suppress(AssertionError):
        eventually(lambda: view.status()["phase"] != "Queued", "another phase", PENDING_SECONDS + 2)
    assert view.status()["phase"] == "Queued"
    assert "activeSince" not in view.status()
    admitted(stage, queue, view)
    view.until_condition("Ready", "True", SECONDS)
    deployment = view.child("Deployment", "waits-sampler")
    assert deployment
    assert deployment["metadata"]["labels"][LABEL] == "team"
    job = view.until_attempt(1)
    assert writers(job, "suspend") == {"kueue"}
    assert FLAVOUR in job["spec"]["template"]["spec"]["tolerations"], "the operator does not take it back"
    assert view.status()["restarts"] == 0
    if stage.cluster.audit_log:
        calls = [call for call in read_calls(stage.cluster.audit_log, began) if call.agent == "empg-operator"]
        jobs = [(call.verb, call.code) for call in calls if call.resource == "jobs" and call.writes]
        assert jobs == [("create", 201)]
        assert 422 not in {call.code for call in calls}


def test_a_learner_that_lost_its_place_waits_with_its_samplers_gone(stage: Stage, queue: JobQueue) -> None:
    view = stage.create("preempted", QUEUED)
    until_queued(stage, view)
    admitted(stage, queue, view)
    view.until_condition("Ready", "True", SECONDS)
    queue.preempt("preempted-learner-1")
    until_queued(stage, view)
    assert view.condition("Ready")["reason"] == "Queued"
    admitted(stage, queue, view)
    view.until_condition("Ready", "True", SECONDS)
    status = view.status()
    assert (status["attempt"], status["restarts"]) == (1, 0)


def test_a_run_that_is_suspended_leaves_the_queue(stage: Stage, queue: JobQueue) -> None:
    view = stage.create("leaves", QUEUED)
    until_queued(stage, view)
    view.change({"suspend": True})
    view.until_phase("Suspended", SECONDS)
    eventually(lambda: not view.child("Job", "leaves-learner-1"), "end of the Job", SECONDS)
    view.change({"suspend": False})
    until_queued(stage, view, attempt=2)
    admitted(stage, queue, view, attempt=2)
    assert view.status()["restarts"] == 0
    stage.until_no_orphans()


def test_samplers_that_the_queue_holds_back_cost_no_time(stage: Stage) -> None:
    """As Kueue does it to pods: by a gate, which it takes away when it admits them."""
    gates = {"spec": {"schedulingGates": [{"name": "kueue.x-k8s.io/admission"}]}}
    view = stage.create("gated", {"sampler.podTemplate": gates, "deadlines.samplingSeconds": 40})
    stage.learners(view)
    view.report(phase="sampling")
    view.until_phase("Queued", SECONDS)
    assert (view.condition("SamplersReady")["reason"], view.condition("LearnerReady")["status"]) == (
        "SchedulingGated",
        "True",
    )
    status = view.status()
    assert status["clock"]["waitingFor"] == "queue"
    assert [step["waitingFor"] for step in status["interrupted"]] == ["pods"], "no E-step has begun"
    assert "activeSince" not in status
    for pod in stage.pods(view.sampler_pods):
        path = f"/api/v1/namespaces/{stage.namespace}/pods/{pod['metadata']['name']}"
        stage.rest.patch(path, {"spec": {"schedulingGates": None}})
    stage.samplers(view)
    view.until_phase("Sampling", SECONDS)
    clock = view.status()["clock"]
    assert (clock["waitingFor"], clock["seconds"]) == ("sampling", 0)


def _admit(queue: JobQueue, name: str) -> bool:
    try:
        return queue.admit(name)
    except ApiError as error:
        if error.code != 409:
            raise
        return False
