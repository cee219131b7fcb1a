"""Why a run does not go on: each cause is named in its conditions, with what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from pod_status import Pod
from run_view import RunView
from simulated_node import Start
from stage import SECONDS, Stage
from waiting import eventually

CAUSES = {
    "image": ("ImagePullBackOff", ["registry.example/nothing", "learner.image"]),
    "large": ("Unschedulable", ["Insufficient cpu"]),
    "quota": ("ExceededQuota", ["exceeded quota: none", "raise the quota"]),
    "lost": ("ClaimMissing", ['persistentvolumeclaim "nowhere" not found', "spec.storage.claimName"]),
    "unbound": ("ClaimPending", ["unbound-data", "spec.storage"]),
}
"""Run: reason, and what its message says among others."""
HOST = {"spec": {"hostNetwork": True}}
"""What Pod Security does not let into a restricted namespace."""


def starts(pod: Pod) -> Start:
    return Start.NO_IMAGE if "registry.example/nothing" in str(pod["spec"]["containers"]) else Start.RUN


@pytest.fixture(scope="module")
def runs(stage: Stage) -> Mapping[str, RunView]:
    """One run for each cause, in a namespace that takes restricted pods alone; they wait side by side."""
    stage.cluster.kubectl("label", "namespace", stage.namespace, "pod-security.kubernetes.io/enforce=restricted")
    _forbid(stage, f"{stage.namespace}-none")
    _add_class(stage, f"{stage.namespace}-nobody")
    stage.node.start_as = starts
    cpus = {"spec": {"containers": [{"name": "learner", "resources": {"requests": {"cpu": "5000"}}}]}}
    return {
        "image": stage.create("image", {"learner.image": "registry.example/nothing"}),
        "large": stage.create("large", {"learner.podTemplate": cpus}),
        "quota": stage.create("quota", {"priorityClassName": f"{stage.namespace}-none"}),
        "lost": stage.create("lost", {"storage.claimName": "nowhere"}),
        "unbound": stage.create("unbound", {"storage.storageClassName": f"{stage.namespace}-nobody"}, volume=False),
        "refused": stage.create("refused", {"learner.podTemplate": HOST}),
        "edited": stage.create("edited"),
    }


@pytest.mark.parametrize("name", CAUSES)
def test_a_cause_is_named_with_its_remedy(runs: Mapping[str, RunView], name: str) -> None:
    reason, words = CAUSES[name]
    ready = runs[name].until_reason("Ready", reason, SECONDS)
    assert ready["status"] == "False"
    learner = runs[name].condition("LearnerReady")
    assert learner["reason"] == reason
    for word in words:
        assert word in learner["message"]
    assert learner["message"].startswith(ready["message"].rstrip("…"))
    assert runs[name].status()["restarts"] == 0


def test_a_pod_that_the_namespace_forbids_is_refused_before_there_is_a_job(
    stage: Stage, runs: Mapping[str, RunView]
) -> None:
    view = runs["refused"]
    accepted = view.until_reason("Accepted", "TemplateRefused", SECONDS)
    assert "hostNetwork" in accepted["message"]
    assert 'violates PodSecurity "restricted' in accepted["message"]
    assert view.condition("Ready")["status"] == "False"
    assert not view.child("Job", "refused-learner-1")
    assert "hostNetwork" in eventually(lambda: view.told("TemplateRefused"), "event", SECONDS)[0]
    view.change({"learner": {"podTemplate": None}})
    view.until_condition("Ready", "True", SECONDS)
    assert view.condition("Accepted")["reason"] == "Accepted"


def test_what_runs_goes_on_when_an_edit_is_refused(stage: Stage, runs: Mapping[str, RunView]) -> None:
    view = runs["edited"]
    [learner], [sampler] = stage.learners(view), stage.samplers(view)
    view.until_condition("Ready", "True", SECONDS)
    before = view.child("Deployment", "edited-sampler")
    assert before
    view.change({"sampler": {"podTemplate": HOST}})
    view.until_reason("Accepted", "TemplateRefused", SECONDS)
    view.change({"sampler": {"replicas": 2}})
    stage.samplers(view, 2)
    after: dict[str, Any] = view.child("Deployment", "edited-sampler") or {}
    assert after["spec"]["template"] == before["spec"]["template"], "the template of before stays in use"
    assert stage.learners(view)[0]["metadata"]["uid"] == learner["metadata"]["uid"]
    assert sampler["metadata"]["name"] in {pod["metadata"]["name"] for pod in stage.samplers(view, 2)}
    assert view.condition("Ready")["status"] == "True"
    view.change({"sampler": {"podTemplate": None}})
    view.until_reason("Accepted", "Accepted", SECONDS)


def test_an_image_that_comes_after_all_is_used(stage: Stage, runs: Mapping[str, RunView]) -> None:
    view = runs["image"]
    view.until_reason("Ready", "ImagePullBackOff", SECONDS)
    [pod] = stage.pods(view.learner_pods)
    stage.node.run(pod)
    view.until_condition("Ready", "True", SECONDS)
    assert view.status()["attempt"] == 1


def _forbid(stage: Stage, priority_class: str) -> None:
    """No pod of a priority class may be created in the namespace."""
    made = {"metadata": {"name": priority_class}, "value": 1}
    stage.rest.create("/apis/scheduling.k8s.io/v1/priorityclasses", made)
    scope = {"scopeName": "PriorityClass", "operator": "In", "values": [priority_class]}
    quota = {
        "metadata": {"name": "none"},
        "spec": {"hard": {"pods": "0"}, "scopeSelector": {"matchExpressions": [scope]}},
    }
    stage.rest.create(f"/api/v1/namespaces/{stage.namespace}/resourcequotas", quota)


def _add_class(stage: Stage, name: str) -> None:
    """A storage class whose claims nobody makes volumes for."""
    made = {"metadata": {"name": name}, "provisioner": "example.com/nobody"}
    stage.rest.create("/apis/storage.k8s.io/v1/storageclasses", made)
