"""Runs in a queue that holds back what comes in: samplers are admitted one by one, and Jobs come in suspended."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from job_queue import LABEL, JobQueue
from pod_queue import PARENT, PodQueue
from run_view import RunView
from stage import SECONDS, Stage
from waiting import eventually

from empg import exit_codes
from hack.controlplane.access import read_calls
from hack.rest import ApiError, Document

CALM_SECONDS = 20.0
_ABSENT, _CONFLICT = 404, 409


@pytest.fixture(scope="module")
def jobs(stage: Stage) -> Iterator[JobQueue]:
    with JobQueue(stage.cluster.kubeconfig, stage.namespace) as queue:
        yield queue


@pytest.fixture(scope="module")
def pods(stage: Stage) -> Iterator[PodQueue]:
    if not served(stage):
        pytest.skip("policies of the API server that change objects need Kubernetes 1.36")
    with PodQueue(stage.cluster.kubeconfig, stage.namespace) as queue:
        yield queue


def served(stage: Stage) -> bool:
    try:
        stage.rest.get("/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies")
    except ApiError as error:
        if error.code != _ABSENT:
            raise
        return False
    return True


def start(stage: Stage, jobs: JobQueue, name: str, samplers: int) -> RunView:
    """A run whose learner was admitted."""
    view = stage.create(name, {"queueName": "team", "sampler.replicas": samplers})
    admit(stage, jobs, view, 1)
    return view


def admit(stage: Stage, jobs: JobQueue, view: RunView, attempt: int) -> None:
    """Wait until the learner of an attempt is in the queue, and let it go."""
    view.until_attempt(attempt)
    view.until_phase("Queued", SECONDS)

    def admitted() -> bool:
        try:
            return jobs.admit(f"{view.name}-learner-{attempt}")
        except ApiError as error:
            if error.code != _CONFLICT:
                raise
            return False

    eventually(admitted, "admission", SECONDS)
    stage.learners(view)


def deployment(view: RunView) -> Document:
    found = view.child("Deployment", f"{view.name}-sampler")
    assert found
    return found


def assert_marked(view: RunView) -> None:
    """The pod template has what the queue wrote there, and the operator does not say that it was it."""
    found = deployment(view)
    written = found["spec"]["template"]["metadata"]
    assert written["labels"][LABEL] == "team"
    assert written["annotations"][PARENT] == "deployment"
    mine = [part for part in found["metadata"]["managedFields"] if part["manager"] == "empg-operator"]
    assert mine
    assert all(LABEL not in json.dumps(part["fieldsV1"]["f:spec"]) for part in mine)


def assert_calm(stage: Stage) -> None:
    """The operator does not write to the children of a run again and again."""
    if stage.cluster.audit_log is None:
        return
    began = stage.cluster.audit_log.stat().st_size
    time.sleep(CALM_SECONDS)
    calls = [call for call in read_calls(stage.cluster.audit_log, began) if call.namespace == stage.namespace]
    mine = [call for call in calls if call.agent == "empg-operator" and call.writes]
    assert [call for call in mine if call.resource in ("jobs", "deployments", "pods")] == []


def test_a_run_goes_on_with_the_samplers_that_it_gets(stage: Stage, jobs: JobQueue, pods: PodQueue) -> None:
    view = start(stage, jobs, "parts", samplers=2)
    first, second = pods.until_waiting(view.sampler_pods, 2, SECONDS)
    said = view.until_reason("SamplersReady", "SchedulingGated", SECONDS)["message"]
    assert "it waits for its queue to admit it" in said
    pods.admit(first)
    stage.samplers(view, 1)
    said = view.until_reason("SamplersReady", "PartlyReady", SECONDS)["message"]
    assert said == "1 of 2 samplers are ready."
    view.until_condition("Ready", "True", SECONDS)
    assert_marked(view)
    assert_calm(stage)
    pods.admit(second)
    view.until_reason("SamplersReady", "Running", SECONDS)
    before = deployment(view)["metadata"]["annotations"]["deployment.kubernetes.io/revision"]
    view.change({"sampler": {"replicas": 3}})
    pods.until_waiting(view.sampler_pods, 1, SECONDS)
    assert_marked(view)
    assert deployment(view)["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == before
    assert {pod["metadata"]["name"] for pod in stage.samplers(view, 2)} == {first, second}, "nobody else is replaced"
    assert view.status()["restarts"] == 0


def test_a_sampler_that_lost_its_place_waits_for_another(stage: Stage, jobs: JobQueue, pods: PodQueue) -> None:
    view = start(stage, jobs, "robbed", samplers=2)
    for name in pods.until_waiting(view.sampler_pods, 2, SECONDS):
        pods.admit(name)
    kept, lost = (pod["metadata"]["name"] for pod in stage.samplers(view, 2))
    view.until_reason("SamplersReady", "Running", SECONDS)
    pods.preempt(lost)
    [again] = pods.until_waiting(view.sampler_pods, 1, SECONDS)
    view.until_reason("SamplersReady", "PartlyReady", SECONDS)
    assert view.condition("Ready")["status"] == "True"
    assert [pod["metadata"]["name"] for pod in stage.samplers(view, 1)] == [kept]
    assert_calm(stage)
    pods.admit(again)
    view.until_reason("SamplersReady", "Running", SECONDS)
    status = view.status()
    assert (status["attempt"], status["restarts"]) == (1, 0)


def test_a_learner_that_ends_before_its_pod_is_gone_queues_anew(
    stage: Stage, jobs: JobQueue, pods: PodQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its exit code the Job that is suspended already is to fail, and can't."""
    view = start(stage, jobs, "stopped", samplers=1)
    pods.admit(*pods.until_waiting(view.sampler_pods, 1, SECONDS))
    view.until_condition("Ready", "True", SECONDS)
    monkeypatch.setattr(stage.node, "sigterm_exit_code", exit_codes.RETRY)
    monkeypatch.setattr(stage.node, "linger_seconds", 4.0)
    jobs.preempt("stopped-learner-1")
    view.until_attempt(2)
    eventually(lambda: not view.child("Job", "stopped-learner-1"), "end of the first Job", SECONDS)
    admit(stage, jobs, view, 2)
    pods.admit(*pods.until_waiting(view.sampler_pods, 1, SECONDS))
    view.until_condition("Ready", "True", SECONDS)
    status = view.status()
    assert (status["attempt"], status["restarts"]) == (2, 0)
