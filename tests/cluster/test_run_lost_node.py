"""A node that falls silent under learners: the real controllers give its pods up, and no kubelet tells their end."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from pod_status import Pod
from run_view import RunView
from simulated_node import SimulatedNode
from stage import SECONDS, Stage

from empg import exit_codes

SILENT_SECONDS = 240.0
"""Enough for the node controller to notice, for what follows, and for the operator."""
UNREACHABLE = "node.kubernetes.io/unreachable"


@dataclass(frozen=True)
class Lost:
    """Runs with a learner's pod on a node that fell silent."""

    alone: RunView
    gang: RunView
    node: SimulatedNode
    pods: Mapping[str, Pod]
    """By the run's name, those on that node."""


@pytest.fixture(scope="module")
def lost(stage: Stage) -> Iterator[Lost]:
    """The node has room for one learner's pod of each run, and falls silent; the gang's survivor leaves."""
    with SimulatedNode(stage.cluster.kubeconfig, f"lost-{stage.node.name}", pods="2") as node:
        alone = stage.create("alone", placed(stage, node))
        node.ready(stage.namespace, alone.learner_pods, 1, SECONDS)
        gang = stage.create("gang", {**placed(stage, node), "learner.nodes": 2})
        node.ready(stage.namespace, gang.learner_pods, 1, SECONDS)
        [survivor] = stage.learners(gang)
        views = {view.name: view for view in (alone, gang)}
        pods = {name: node.pods(stage.namespace, view.learner_pods)[0] for name, view in views.items()}
        for view in views.values():
            view.until_condition("Ready", "True", SECONDS)
        node.lose()
        stage.node.finish(survivor, exit_codes.RETRY, message="node 1 is silent")
        yield Lost(alone, gang, node, pods)


def placed(stage: Stage, node: SimulatedNode) -> dict[str, Any]:
    """Learners are on a node while it has room and answers, and given up soon; samplers are on the other one."""
    there = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node.name]}]}
    soon = {"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}
    learner = {
        "affinity": {
            "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": there}]}
        },
        "tolerations": [soon],
        "terminationGracePeriodSeconds": 1,
    }
    return {
        "learner.podTemplate": {"spec": learner},
        "sampler.podTemplate": {"spec": {"nodeSelector": {"kubernetes.io/hostname": stage.node.name}}},
    }


def until_second_attempt(stage: Stage, view: RunView, pods: int) -> None:
    """Wait until the second attempt runs, on the other node and at no cost; the first one's Job is gone."""
    view.until_attempt(2, SILENT_SECONDS)
    running = stage.learners(view, pods)
    assert {pod["metadata"]["labels"]["empg.dev/attempt"] for pod in running} == {"2"}
    view.until_condition("Ready", "True", SECONDS)
    status = view.status()
    assert (status["attempt"], status["judgedAttempt"]) == (2, 1)
    assert (status["restarts"], status["fruitlessRestarts"], status["unchargedEnds"]) == (0, 0, 1)
    assert not view.child("Job", f"{view.name}-learner-1")


def test_a_gang_goes_on_without_the_lost_node(stage: Stage, lost: Lost) -> None:
    view = lost.gang
    stopping = view.until_reason("LearnerReady", "Stopping", SECONDS)
    assert stopping["message"].startswith("Attempt 1 ends, and its last pods stop")
    assert view.condition("Ready")["status"] == "False"
    until_second_attempt(stage, view, 2)
    assert "node 1 is silent" in view.until_told("LearnerStopped")[0]


def test_a_learner_goes_on_without_the_lost_node(stage: Stage, lost: Lost) -> None:
    view = lost.alone
    said = view.until_reason("LearnerReady", "NodeLost", SILENT_SECONDS)
    assert lost.pods["alone"]["metadata"]["name"] in said["message"]
    assert view.condition("Ready")["reason"] == "NodeLost"
    until_second_attempt(stage, view, 1)
    assert f"node {lost.node.name} does not tell" in view.until_told("Evicted")[0]


def test_a_pod_that_comes_back_changes_nothing(stage: Stage, lost: Lost) -> None:
    for view, pod in ((lost.alone, lost.pods["alone"]), (lost.gang, lost.pods["gang"])):
        until_second_attempt(stage, view, 2 if view is lost.gang else 1)
        kept = lost.node.pods(stage.namespace, view.learner_pods)
        assert [each["metadata"]["uid"] for each in kept] == [pod["metadata"]["uid"]], "nobody told its end"
        view.report(attempt=1, iteration=1, phase="learning")
        lost.node.finish(pod, exit_code=1)
        stage.rest.delete(f"/api/v1/namespaces/{stage.namespace}/pods/{pod['metadata']['name']}", gracePeriodSeconds=0)
    time.sleep(7)  # longer than a resync
    for view in (lost.alone, lost.gang):
        status = view.status()
        assert (status["attempt"], status["restarts"], status["unchargedEnds"]) == (2, 0, 1)
        assert view.condition("Ready")["status"] == "True"
        assert not view.child("Job", f"{view.name}-learner-3")
