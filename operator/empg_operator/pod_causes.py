"""What a pod itself says of why it does not run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from empg import exit_codes
from empg_operator.cause_message import ENDING_LIMIT, Cause, explained
from empg_operator.decision import Manifest
from empg_operator.names import Role

_IMAGE = frozenset(
    {"ImagePullBackOff", "ErrImagePull", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable"}
)
_CONFIG = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_DISRUPTIONS = {
    "PreemptionByScheduler": "Preempted",
    "DeletionByTaintManager": "NodeLost",
    "DeletionByPodGC": "NodeLost",
}
_AFTER_IT: dict[Role, str] = {
    "sampler": "another one takes its place and its open work",
    "learner": "the next attempt goes on from the newest state, when this pod has ended or soon after it should have",
}
_REFUSED_BY_NODE = {"NodeLost": "NodeLost", "Evicted": "Evicted", "Preempting": "Preempted"}
_ENDS = {
    exit_codes.SPEC: "InvalidSpec",
    exit_codes.DIVERGED: "Diverged",
    exit_codes.RETRY: "Retry",
    exit_codes.WAITING: "Waiting",
}
_ORDERLY = (exit_codes.OK, exit_codes.RETRY, exit_codes.WAITING)
_BACK_OFF = re.compile(r'Back-off pulling image "[^"]*"(: \w+: )?')


def of_pod(pod: Manifest, role: Role) -> Iterator[Cause]:
    """Everything that is wrong with a pod."""
    status, name = _status(pod), pod["metadata"]["name"]
    conditions = {condition["type"]: condition for condition in status.get("conditions") or ()}
    disrupted, scheduled = conditions.get("DisruptionTarget", {}), conditions.get("PodScheduled", {})
    if disrupted.get("status") == "True":
        reason = _DISRUPTIONS.get(disrupted.get("reason", ""), "Evicted")
        yield explained(reason, f"Pod {name}", disrupted.get("message", ""), _AFTER_IT[role])
    elif _given_up(pod):
        remedy = f"see `kubectl describe node {pod['spec'].get('nodeName') or 'NAME'}`"
        if status["reason"] == "Evicted":
            remedy = f"let it ask for more in spec.{role}.podTemplate"
        yield explained(
            _REFUSED_BY_NODE.get(status["reason"], "RefusedByNode"),
            f"The node gave pod {name} up ({status['reason']})",
            status.get("message", ""),
            f"if this goes on, {remedy}",
        )
    elif not pod["metadata"].get("deletionTimestamp"):
        if scheduled.get("status") == "False":
            yield _unscheduled(name, role, scheduled)
        if _unheard(conditions):
            remedy = f"unless it answers soon, the pod is given up (tolerationSeconds in spec.{role}.podTemplate)"
            yield explained("NodeLost", f"The node of pod {name} does not answer", "", remedy)
        for container in _containers(pod):
            yield from _of_container(name, role, container)


def ends(pod: Manifest, role: Role) -> Iterator[tuple[bool, str, Cause]]:
    """How the role's container ended: whether in good order, when, and what it said."""
    for status in _status(pod).get("containerStatuses") or ():
        ended = _terminated(status)
        if status["name"] == role and ended is not None:
            orderly = ended["exitCode"] in _ORDERLY
            yield orderly, ended.get("finishedAt") or "", _ended(pod["metadata"]["name"], role, role, ended)


def refused(pod: Manifest) -> bool:
    """Whether the pod's node would not have it, or gave it up, and none of its containers ended in disorder."""
    return _given_up(pod) and not crashed(pod)


def crashed(pod: Manifest) -> bool:
    """Whether any container of the pod, those that come first among them, ended in disorder."""
    return any(_failed(status) is not None for status in _containers(pod))


def runs(pod: Manifest) -> bool:
    """Whether a container of the pod runs."""
    return any("running" in (status.get("state") or {}) for status in _status(pod).get("containerStatuses") or ())


def _unheard(conditions: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the node controller took the pod's readiness away: a kubelet that does so gives a reason."""
    ready, containers = conditions.get("Ready", {}), conditions.get("ContainersReady", {})
    taken = ready.get("status") == "False" and not ready.get("reason")
    return taken and containers.get("status") == "True"


def gated(pod: Manifest) -> bool:
    """Whether a queue holds the pod back from the scheduler."""
    said = [each for each in _status(pod).get("conditions") or () if each["type"] == "PodScheduled"]
    return any(each["status"] == "False" and each.get("reason") == "SchedulingGated" for each in said)


def failing(pod: Manifest) -> bool:
    """Whether a container of the pod ended in disorder and has not been ready since."""
    return any(_failed(status) is not None for status in _status(pod).get("containerStatuses") or ())


def _unscheduled(pod: str, role: Role, condition: Mapping[str, Any]) -> Cause:
    message = condition.get("message", "")
    if condition.get("reason") == "SchedulingGated":
        return explained("SchedulingGated", f"Pod {pod}", message, "it waits for its queue to admit it")
    if "persistentvolumeclaim" in message and "not found" in message:
        return explained("ClaimMissing", f"Pod {pod}", message, "create the claim, or correct spec.storage.claimName")
    devices = "spec.sampler.tensorParallel" if role == "sampler" else "spec.learner.processes"
    remedy = f"free or add nodes, or ask for less ({devices}, spec.{role}.podTemplate)"
    return explained("Unschedulable", f"No node fits pod {pod}", message, remedy)


def _of_container(pod: str, role: Role, status: Mapping[str, Any]) -> Iterator[Cause]:
    waiting = (status.get("state") or {}).get("waiting") or {}
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    where = f"Container {status['name']} of pod {pod}"
    if reason == "InvalidImageName":
        yield explained(reason, where, message, f"correct spec.{role}.image")
    elif reason in _IMAGE:
        # The kubelet says in turns that it failed and that it waits to try again; one message for both.
        why = f"image {status.get('image', '')} can't be had: {_BACK_OFF.sub('', message)}".rstrip(": ")
        remedy = f"correct spec.{role}.image, or add its pull secret to spec.{role}.podTemplate"
        yield explained("ImagePullBackOff", where, why, remedy)
    elif reason in _CONFIG:
        yield explained(reason, where, message, f"create what is missing, or correct spec.{role}.podTemplate")
    elif (ended := _failed(status)) is not None:
        last = _ended(pod, status["name"], role, ended)
        again = "CrashLoopBackOff" if status.get("restartCount", 0) > 0 else "Crashed"
        yield Cause("OOMKilled" if last.reason == "OOMKilled" else again, last.message)


def _ended(pod: str, container: str, role: Role, ended: Mapping[str, Any]) -> Cause:
    code, where = ended["exitCode"], f"Container {container} of pod {pod}"
    if ended.get("reason") == "OOMKilled":
        remedy = f"raise its memory limit in spec.{role}.podTemplate, or let it hold less"
        return explained("OOMKilled", f"{where} used more memory than its limit", "", remedy)
    remedy = f"`kubectl logs {pod} -c {container}` shows more, while the pod exists"
    what = f"{where} ended with exit code {code}"
    said = ended.get("message") or ""
    return explained(_ENDS.get(code, "Crashed"), what, said, remedy, tail=True, limit=ENDING_LIMIT)


def _status(pod: Manifest) -> Mapping[str, Any]:
    return pod.get("status") or {}


def _given_up(pod: Manifest) -> bool:
    """Whether the kubelet says why the pod as a whole failed: no container did it."""
    return _status(pod).get("phase") == "Failed" and bool(_status(pod).get("reason"))


def _containers(pod: Manifest) -> Iterator[Mapping[str, Any]]:
    for kind in ("initContainerStatuses", "containerStatuses"):
        yield from _status(pod).get(kind) or ()


def _failed(status: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The newest end of a container, if it was in disorder and the container is not ready again."""
    ended = _terminated(status)
    if ended is None or status.get("ready"):
        return None
    orderly = ended["exitCode"] in _ORDERLY and not (ended["exitCode"] == exit_codes.RETRY and _backs_off(status))
    return None if orderly else ended


def _backs_off(status: Mapping[str, Any]) -> bool:
    """Whether the kubelet waits to start a container that ends again and again, as one whose probe fails."""
    return ((status.get("state") or {}).get("waiting") or {}).get("reason") == "CrashLoopBackOff"


def _terminated(status: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The newest end of a container."""
    found: Mapping[str, Any] | None = (status.get("state") or {}).get("terminated")
    return found or (status.get("lastState") or {}).get("terminated")
