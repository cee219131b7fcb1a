"""Edits of a run that goes on: what changes at once, what with the next attempt, and what stays as it is."""

from __future__ import annotations

import json
import time

import pytest
from pod_status import Pod
from run_view import RunView
from stage import SECONDS, Stage
from waiting import eventually

from hack.rest import ApiError, Document

REVISION = "empg.dev/revision"


def names(pods: list[Pod]) -> set[str]:
    return {pod["metadata"]["name"] for pod in pods}


def child(view: RunView, kind: str, suffix: str) -> Document:
    found = view.child(kind, f"{view.name}-{suffix}")
    assert found, f"{view.name} has no {kind} {suffix}"
    return found


def until_seen(view: RunView) -> None:
    """Wait until the operator has seen the newest spec and found nothing more to do."""
    eventually(
        lambda: view.status().get("observedGeneration") == view.document()["metadata"]["generation"], "pass", SECONDS
    )


def until_read(view: RunView, *path: str, value: object) -> None:
    """Wait until the file that the pods read says so."""

    def look() -> bool:
        found = json.loads(child(view, "ConfigMap", "run")["data"]["run.json"])["spec"]
        for key in path:
            found = found.get(key, {})
        return bool(found == value)

    eventually(look, f"{'.'.join(path)} = {value} in run.json of {view.name}", SECONDS)


def test_samplers_follow_the_spec_and_kubectl_scale(stage: Stage) -> None:
    view, learner = stage.start("scaled", {"sampler.replicas": 2})
    first = names(stage.samplers(view, 2))
    view.change({"sampler": {"replicas": 3}})
    assert names(stage.samplers(view, 3)) > first, "those that ran go on"
    stage.cluster.kubectl("scale", "empgrun", "scaled", "-n", stage.namespace, "--replicas=1")
    stage.samplers(view, 1)
    eventually(lambda: view.status()["samplers"]["summary"] == "1/1", "count of one sampler", SECONDS)
    path = f"/apis/empg.dev/v1alpha1/namespaces/{stage.namespace}/empgruns/scaled/scale"
    scale = stage.rest.get(path)
    assert scale["spec"]["replicas"] == scale["status"]["replicas"] == 1
    assert names(stage.pods(scale["status"]["selector"])) >= names(stage.samplers(view, 1))
    assert names(stage.learners(view)) == {learner["metadata"]["name"]}
    view.change({"sampler": {"replicas": 0}})
    assert "raise it" in view.until_reason("Ready", "NoSamplers", SECONDS)["message"]
    view.change({"sampler": {"replicas": 1}})
    view.until_condition("Ready", "True", SECONDS)


def test_a_learning_rate_reaches_the_running_pods_and_nothing_else_changes(stage: Stage) -> None:
    view, _ = stage.start("rate", {"optimizer.learningRate": 3e-6})
    view.until_condition("Ready", "True", SECONDS)
    job, deployment = child(view, "Job", "learner-1"), child(view, "Deployment", "sampler")
    pods = names(stage.learners(view) + stage.samplers(view))
    view.change({"optimizer": {"learningRate": 2e-6}})
    until_read(view, "optimizer", "learningRate", value=2e-6)
    until_seen(view)
    for before, now in ((job, child(view, "Job", "learner-1")), (deployment, child(view, "Deployment", "sampler"))):
        assert now["metadata"]["uid"] == before["metadata"]["uid"]
        assert now["spec"] == before["spec"]
    assert names(stage.learners(view) + stage.samplers(view)) == pods
    assert view.status()["attempt"] == 1


def test_iterations_raised_after_the_end_are_made(stage: Stage) -> None:
    view, learner = stage.start("longer")
    view.report(iteration=3, phase="done", policyVersion=3)
    stage.node.finish(learner)
    view.until_phase("Complete", SECONDS)
    stage.until_no_pods(view)
    view.change({"em": {"iterations": 5}})
    view.until_attempt(2)
    [learner] = stage.learners(view)
    stage.samplers(view)
    assert view.until_condition("Complete", "False")["reason"] in ("IterationsRaised", "Running")
    status = view.status()
    assert (status["attempt"], status["restarts"], "completionTime" in status) == (2, 0, False)
    view.report(attempt=2, iteration=5, iterations=5, phase="done", policyVersion=5)
    stage.node.finish(learner)
    view.until_phase("Complete", SECONDS)
    assert "5 iterations are done" in view.condition("Complete")["message"]
    eventually(lambda: len(view.told("Completed")) == 2, "second event of the end")


def test_the_learners_pods_change_with_the_next_attempt(stage: Stage) -> None:
    view, learner = stage.start("micro", {"learner.tokensPerMicroBatch": 8192})
    before, samplers = child(view, "Job", "learner-1"), names(stage.samplers(view))
    view.change({"learner": {"tokensPerMicroBatch": 4096, "image": "registry.example/learner:2"}})
    until_read(view, "learner", "tokensPerMicroBatch", value=4096)
    until_seen(view)
    assert child(view, "Job", "learner-1")["spec"] == before["spec"]
    assert names(stage.learners(view)) == {learner["metadata"]["name"]}
    stage.node.finish(learner, exit_code=75)
    after = view.until_attempt(2)
    assert after["spec"]["template"]["spec"]["containers"][0]["image"] == "registry.example/learner:2"
    revision = after["metadata"]["labels"][REVISION]
    assert revision != before["metadata"]["labels"][REVISION]
    assert view.child("ControllerRevision", revision)
    assert view.child("ControllerRevision", before["metadata"]["labels"][REVISION]), "kept, to go back to"
    assert names(stage.samplers(view)) == samplers


def test_samplers_are_replaced_for_a_field_that_shapes_them(stage: Stage) -> None:
    view, learner = stage.start("rolled", {"sampler.replicas": 2})
    before, old = child(view, "Deployment", "sampler"), names(stage.samplers(view, 2))
    view.change({"sampler": {"maxConcurrentSequences": 64}})
    eventually(
        lambda: (
            child(view, "Deployment", "sampler")["metadata"]["labels"][REVISION]
            != before["metadata"]["labels"][REVISION]
        ),
        "new revision of the samplers",
        SECONDS,
    )
    eventually(lambda: not old & names(stage.samplers(view, 2)), "new samplers", SECONDS)
    assert view.child("ControllerRevision", before["metadata"]["labels"][REVISION]), "kept, to go back to"
    view.change({"sampler": {"maxConcurrentSequences": 256}})
    eventually(
        lambda: child(view, "Deployment", "sampler")["spec"] == before["spec"], "the template of before", SECONDS
    )
    assert names(stage.learners(view)) == {learner["metadata"]["name"]}
    assert view.status()["attempt"] == 1


def test_a_claim_grows_where_its_class_lets_it(stage: Stage) -> None:
    for name, grows in (("grows", True), ("stays", False)):
        made = {"metadata": {"name": f"{stage.namespace}-{name}"}, "provisioner": "example.com/none"}
        stage.rest.create("/apis/storage.k8s.io/v1/storageclasses", {**made, "allowVolumeExpansion": grows})
    runs = {
        name: stage.create(
            name, {"storage.size": "10Gi", "storage.storageClassName": f"{stage.namespace}-{name}", "em.iterations": 9}
        )
        for name in ("grows", "stays")
    }
    learners = {name: stage.learners(view)[0] for name, view in runs.items()}
    for view in runs.values():
        view.change({"storage": {"size": "20Gi"}})

    def size(view: RunView) -> str:
        return str(child(view, "PersistentVolumeClaim", "data")["spec"]["resources"]["requests"]["storage"])

    eventually(lambda: size(runs["grows"]) == "20Gi", "larger claim", SECONDS)
    refused = eventually(lambda: runs["stays"].told("ApplyFailed"), "event about the claim", SECONDS)[0]
    assert "PersistentVolumeClaim stays-data" in refused
    assert "resize" in refused
    assert size(runs["stays"]) == "10Gi"
    runs["stays"].until_reason("Accepted", "ApplyFailed", SECONDS)

    def refusals() -> tuple[float, float]:
        applied = stage.operator.metric("empg_operator_api_requests_total", verb="apply", code="403")
        return applied, stage.operator.metric("empg_operator_reconcile_total", result="refused")

    before = refusals()
    for number in range(5):
        runs["stays"].report(iteration=number)
        time.sleep(0.3)
    eventually(lambda: runs["stays"].status()["progress"]["iteration"] == 4, "report", SECONDS)
    assert [now - then for now, then in zip(refusals(), before, strict=True)] in ([0, 0], [1, 1]), (
        "not with every event"
    )
    stage.node.finish(learners["stays"], exit_code=75)
    runs["stays"].until_attempt(2)
    eventually(
        lambda: runs["stays"].status()["attempt"] == 2, "status, which a refused claim does not hold up", SECONDS
    )


def test_a_suspended_run_holds_nothing_and_goes_on(stage: Stage) -> None:
    view, _ = stage.start("rests", {"sampler.replicas": 2})
    view.report(iteration=1, policyVersion=1)
    view.until_phase("Sampling", SECONDS)
    view.change({"suspend": True})
    status = view.until_phase("Suspended", SECONDS)
    stage.until_no_pods(view)
    eventually(lambda: not view.child("Job", "rests-learner-1"), "end of the Job", SECONDS)
    assert child(view, "Deployment", "sampler")["spec"]["replicas"] == 0
    assert "activeSince" not in status, "the clock of the run stands"
    assert view.until_condition("Suspended", "True")["message"]
    view.change({"suspend": False})
    view.until_attempt(2)
    stage.learners(view)
    stage.samplers(view, 2)
    view.report(attempt=2, iteration=1, policyVersion=1)
    status = view.until_phase("Sampling", SECONDS)
    assert (status["attempt"], status["restarts"], status["fruitlessRestarts"]) == (2, 0, 0)
    assert [view.until_told(reason) for reason in ("Suspended", "Resumed")] == [
        ["All devices are given back."],
        ["The run goes on from its newest state."],
    ]
    stage.until_no_orphans()


def test_a_run_may_be_created_suspended(stage: Stage) -> None:
    view = stage.create("later", {"suspend": True})
    view.until_phase("Suspended", SECONDS)
    assert not view.child("Job", "later-learner-1")
    view.change({"suspend": False})
    view.until_attempt(1)


def test_who_looks_after_a_run_can_not_be_changed(stage: Stage) -> None:
    view = stage.create("theirs", {"managedBy": "example.com/other"})
    with pytest.raises(ApiError, match="managedBy") as refused:
        view.change({"managedBy": "empg.dev/operator"})
    assert refused.value.code == 422
    assert view.status() == {}


def test_users_containers_run_beside_ours(stage: Stage) -> None:
    proxy = {"name": "proxy", "image": "registry.example/proxy", "restartPolicy": "Always"}
    scribe = {"name": "scribe", "image": "registry.example/scribe"}
    view, learner = stage.start(
        "beside",
        {
            "learner.podTemplate": {"spec": {"initContainers": [proxy]}},
            "sampler.podTemplate": {
                "spec": {"containers": [scribe], "nodeSelector": {"kubernetes.io/hostname": stage.node.name}}
            },
        },
    )
    assert [one["name"] for one in learner["spec"]["initContainers"]] == ["proxy"]
    [sampler] = stage.samplers(view)
    assert {one["name"] for one in sampler["spec"]["containers"]} == {"sampler", "scribe"}
    ours = next(one for one in sampler["spec"]["containers"] if one["name"] == "sampler")
    assert ours["command"] == ["empg-sampler"]
    view.report(iteration=3, phase="done")
    stage.node.finish(learner)
    view.until_phase("Complete", SECONDS)
