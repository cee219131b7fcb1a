"""What a kubelet says about a pod, as patches of its status."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

Pod = Mapping[str, Any]
"""A pod as the API server's JSON has it."""
Status = dict[str, Any]

SIGTERM_EXIT = 128 + 15
SIGKILL_EXIT = 128 + 9


def running(pod: Pod, ip: str, ready: bool = True) -> Status:
    """All containers run; `ready` is what their probes say."""
    now = timestamp()
    spec = pod["spec"]
    started = {"running": {"startedAt": now}}
    init = [
        _container(pod, container, started if _is_sidecar(container) else _terminated(0), ready=True)
        for container in spec.get("initContainers", [])
    ]
    return {
        "phase": "Running",
        "podIP": ip,
        "podIPs": [{"ip": ip}],
        "startTime": pod.get("status", {}).get("startTime", now),
        "conditions": [_condition(kind, True) for kind in ("PodScheduled", "Initialized")]
        + [_condition(kind, ready) for kind in ("ContainersReady", "Ready")],
        "initContainerStatuses": init,
        "containerStatuses": [_container(pod, container, started, ready) for container in spec["containers"]],
    }


def waiting(pod: Pod, reason: str, message: str) -> Status:
    """No container runs, for a reason such as ImagePullBackOff."""
    state = {"waiting": {"reason": reason, "message": message}}
    return {
        "phase": "Pending",
        "startTime": pod.get("status", {}).get("startTime", timestamp()),
        "conditions": [_condition(kind, True) for kind in ("PodScheduled", "Initialized")]
        + [_condition(kind, False) for kind in ("ContainersReady", "Ready")],
        "containerStatuses": [_container(pod, container, state, False) for container in pod["spec"]["containers"]],
    }


def finished(pod: Pod, exit_code: int, reason: str | None = None, message: str = "") -> Status:
    """All containers ended, for good; `message` is their termination message."""
    state = _terminated(exit_code, reason, message)
    return {
        "phase": "Failed" if exit_code else "Succeeded",
        "conditions": [_condition(kind, False) for kind in ("ContainersReady", "Ready")],
        "containerStatuses": [_container(pod, container, state, False) for container in pod["spec"]["containers"]],
    }


def crashing(pod: Pod, exit_code: int, message: str = "") -> Status:
    """All containers ended once more and wait until they are started again."""
    state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}}
    last = _terminated(exit_code, None, message)
    return {
        "phase": "Running",
        "conditions": [_condition(kind, False) for kind in ("ContainersReady", "Ready")],
        "containerStatuses": [
            {**_container(pod, container, state, False, restarted=1), "lastState": last}
            for container in pod["spec"]["containers"]
        ],
    }


def evicted(pod: Pod) -> Status:
    """Killed by the kubelet because the node runs out of memory."""
    message = "The node was low on resource: memory."
    status = finished(pod, SIGKILL_EXIT, message=message)
    disruption = {**_condition("DisruptionTarget", True), "reason": "TerminationByKubelet", "message": message}
    return {**status, "reason": "Evicted", "message": message, "conditions": [*status["conditions"], disruption]}


def refused(reason: str, message: str) -> Status:
    """The kubelet does not take it, as after a restart where a device is missing: nothing is told of containers."""
    return {
        "phase": "Failed",
        "reason": reason,
        "message": f"Pod was rejected: {message}",
        "conditions": [_condition(kind, False) for kind in ("ContainersReady", "Ready")],
        "initContainerStatuses": None,
        "containerStatuses": None,
    }


def is_ready(pod: Pod) -> bool:
    """Whether the pod runs and its probes succeed."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def is_finished(pod: Pod) -> bool:
    """Whether its containers ended for good."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def timestamp() -> str:
    """Now, as the API writes times."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _is_sidecar(container: Mapping[str, Any]) -> bool:
    return container.get("restartPolicy") == "Always"


def _terminated(exit_code: int, reason: str | None = None, message: str = "") -> Status:
    now = timestamp()
    reason = reason or ("Error" if exit_code else "Completed")
    return {
        "terminated": {
            "exitCode": exit_code,
            "reason": reason,
            "message": message,
            "startedAt": now,
            "finishedAt": now,
        }
    }


def _container(pod: Pod, container: Mapping[str, Any], state: Status, ready: bool, restarted: int = 0) -> Status:
    known = pod.get("status", {}).get("containerStatuses", [])
    restarts = next((status["restartCount"] for status in known if status["name"] == container["name"]), 0)
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": "",
        "ready": ready,
        "started": "running" in state,
        "restartCount": restarts + restarted,
        "state": state,
        "lastState": {},
    }


def _condition(kind: str, holds: bool) -> dict[str, Any]:
    return {"type": kind, "status": str(holds), "lastTransitionTime": timestamp()}
