"""Real controllers act on what a simulated node says."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from pod_status import Pod
from simulated_node import SimulatedNode, Start
from waiting import eventually

from hack.controlplane.access import Access

DIVERGED = 65
RULES = [
    {"action": "FailJob", "onExitCodes": {"containerName": "work", "operator": "In", "values": [DIVERGED]}},
    {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget"}]},
]


def workload(kind: str, **changes: Any) -> dict[str, Any]:
    """A Job of two indices, or a Deployment of two replicas, called `work`.

    `changes` are to its pods' spec, but `limits`, which are the container's.
    """
    limits = changes.pop("limits", {})
    container = {"name": "work", "image": "example/work", "resources": {"limits": limits}}
    pods = {"restartPolicy": "Never" if kind == "Job" else "Always", "containers": [container], **changes}
    template = {"metadata": {"labels": {"app": "work"}}, "spec": pods}
    job = {
        "completions": 2,
        "parallelism": 2,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": RULES},
        "template": template,
    }
    deployment = {"replicas": 2, "selector": {"matchLabels": {"app": "work"}}, "template": template}
    return {
        "apiVersion": "batch/v1" if kind == "Job" else "apps/v1",
        "kind": kind,
        "metadata": {"name": "work"},
        "spec": job if kind == "Job" else deployment,
    }


def create(cluster: Access, namespace: str, document: dict[str, Any]) -> None:
    cluster.kubectl("create", "-n", namespace, "-f", "-", input=json.dumps(document))


def condition(cluster: Access, namespace: str, kind: str) -> dict[str, str]:
    """A condition of the Job, once it holds."""

    def look() -> dict[str, str] | None:
        job = json.loads(cluster.kubectl("get", "job", "work", "-n", namespace, "-o", "json"))
        return next((c for c in job["status"].get("conditions", []) if c["type"] == kind), None)

    return eventually(look, f"condition {kind}")


def test_a_job_completes_when_all_its_pods_end_with_zero(
    control_plane: Access, namespace: str, node: SimulatedNode
) -> None:
    create(control_plane, namespace, workload("Job"))
    for pod in node.ready(namespace, "app=work", count=2):
        node.finish(pod)
    assert condition(control_plane, namespace, "Complete")["reason"] == "CompletionsReached"


def test_a_job_names_the_rule_that_an_exit_code_met(control_plane: Access, namespace: str, node: SimulatedNode) -> None:
    create(control_plane, namespace, workload("Job"))
    first, _ = node.ready(namespace, "app=work", count=2)
    node.finish(first, exit_code=DIVERGED, message="the loss is not finite")
    failed = condition(control_plane, namespace, "Failed")
    assert failed["reason"] == "PodFailurePolicy"
    assert "failed with exit code 65 matching FailJob rule at index 0" in failed["message"]
    eventually(lambda: len(node.pods(namespace)) == 1, "termination of the other pod")
    kept = node.pods(namespace)[0]["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (kept["exitCode"], kept["message"]) == (DIVERGED, "the loss is not finite")


def test_a_crash_that_no_rule_names_exhausts_the_backoff(
    control_plane: Access, namespace: str, node: SimulatedNode
) -> None:
    create(control_plane, namespace, workload("Job"))
    node.finish(node.ready(namespace, "app=work", count=2)[1], exit_code=1)
    assert condition(control_plane, namespace, "Failed")["reason"] == "BackoffLimitExceeded"


@pytest.mark.parametrize("evict", [SimulatedNode.evict, SimulatedNode.evict_for_memory])
def test_a_job_tells_eviction_from_a_crash(
    control_plane: Access, namespace: str, node: SimulatedNode, evict: Any
) -> None:
    create(control_plane, namespace, workload("Job"))
    evict(node, node.ready(namespace, "app=work", count=2)[0])
    failed = condition(control_plane, namespace, "Failed")
    assert "has condition DisruptionTarget matching FailJob rule at index 1" in failed["message"]


def test_a_process_that_ignores_sigterm_takes_its_whole_grace(
    control_plane: Access, namespace: str, node: SimulatedNode
) -> None:
    node.sigterm_exit_code = None
    create(control_plane, namespace, workload("Deployment", terminationGracePeriodSeconds=2))
    pods = node.ready(namespace, "app=work", count=2)
    began = time.monotonic()
    control_plane.kubectl("delete", "deployment", "work", "-n", namespace, "--cascade=foreground", "--wait=false")
    eventually(lambda: all("deletionTimestamp" in p["metadata"] for p in node.pods(namespace)), "deletion of all pods")
    assert len(node.pods(namespace)) == len(pods)
    eventually(lambda: not node.pods(namespace), "end of all pods")
    assert time.monotonic() - began > 1.5


def test_a_deployment_scales(control_plane: Access, namespace: str, node: SimulatedNode) -> None:
    create(control_plane, namespace, workload("Deployment"))
    addresses = [pod["status"]["podIP"] for pod in node.ready(namespace, "app=work", count=2)]
    assert len(set(addresses)) == 2
    control_plane.kubectl("scale", "deployment", "work", "-n", namespace, "--replicas=5")
    node.ready(namespace, "app=work", count=5)
    control_plane.kubectl("scale", "deployment", "work", "-n", namespace, "--replicas=1")
    node.ready(namespace, "app=work", count=1)


def test_a_crash_loop_counts_its_restarts(control_plane: Access, namespace: str, node: SimulatedNode) -> None:
    create(control_plane, namespace, workload("Deployment"))
    name = node.ready(namespace, "app=work", count=2)[0]["metadata"]["name"]

    def crashed() -> Pod:
        return next(pod for pod in node.pods(namespace) if pod["metadata"]["name"] == name)

    for _ in range(2):
        node.finish(crashed(), exit_code=1)
    status = crashed()["status"]["containerStatuses"][0]
    assert (status["restartCount"], status["state"]["waiting"]["reason"]) == (2, "CrashLoopBackOff")
    assert len(node.ready(namespace, "app=work", count=1)) == 1
    node.run(crashed())
    node.ready(namespace, "app=work", count=2)


def test_a_missing_image_keeps_pods_waiting_until_it_is_there(
    control_plane: Access, namespace: str, node: SimulatedNode
) -> None:
    node.start_as = lambda pod: Start.NO_IMAGE
    create(control_plane, namespace, workload("Job"))

    def waiting() -> list[Any]:
        pods = [pod for pod in node.pods(namespace) if "containerStatuses" in pod["status"]]
        return pods if len(pods) == 2 else []

    pods = eventually(waiting, "two pods that wait for their image")
    states = [pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] for pod in pods]
    assert states == ["ImagePullBackOff"] * 2
    for pod in pods:
        node.run(pod)
    node.ready(namespace, "app=work", count=2)


def test_the_scheduler_says_why_a_pod_fits_nowhere(control_plane: Access, namespace: str, node: SimulatedNode) -> None:
    create(control_plane, namespace, workload("Job", limits={"nvidia.com/gpu": "5"}))
    node.ready(namespace, "app=work", count=1)

    def refused() -> list[str]:
        pods = json.loads(control_plane.kubectl("get", "pods", "-n", namespace, "-o", "json"))["items"]
        conditions = [c for pod in pods for c in pod["status"].get("conditions", [])]
        return [c["message"] for c in conditions if c.get("reason") == "Unschedulable"]

    assert "Insufficient nvidia.com/gpu" in eventually(refused, "pod that fits nowhere")[0]


def test_a_lost_node_stops_no_pods(control_plane: Access, namespace: str, node: SimulatedNode) -> None:
    create(control_plane, namespace, workload("Deployment"))
    name = node.ready(namespace, "app=work", count=2)[0]["metadata"]["name"]
    node.lose()
    control_plane.kubectl("delete", "pod", name, "-n", namespace, "--wait=false")
    time.sleep(0.5)
    assert name in [pod["metadata"]["name"] for pod in node.pods(namespace)]
