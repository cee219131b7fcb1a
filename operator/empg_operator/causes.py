"""Why pods are not what they should be, for people: from a look at pods, claims and events to one sentence.

Reasons are Kubernetes' own words where it has one, so that users find them in its documentation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from empg import exit_codes
from empg_operator.decision import Diagnosis, Manifest
from empg_operator.names import ATTEMPT_LABEL, ROLE_LABEL, Role

LIMIT = 500
"""Longest message of a condition, in characters."""


@dataclass(frozen=True)
class Cause:
    """What keeps the pods of a role, or ended them."""

    reason: str
    """One word in CamelCase."""
    message: str
    """What is the case and what to do about it; at most `LIMIT` characters."""


GRAVITY = (
    "InvalidImageName",
    "ImagePullBackOff",
    "CreateContainerConfigError",
    "ExceededQuota",
    "PodSecurityViolation",
    "FailedCreate",
    "OOMKilled",
    "CrashLoopBackOff",
    "ClaimLost",
    "ClaimPending",
    "FailedMount",
    "FailedCreatePodSandBox",
    "Unschedulable",
    "NodeLost",
    "Preempted",
    "Evicted",
    "PodRefused",
    "Crashed",
    "SchedulingGated",
)
"""Reasons, what explains others first: a pending claim makes pods unschedulable, not the other way round."""

STARTING = Cause(
    "Starting", "pods are being created or load their model; `kubectl describe pods` shows how far they are"
)

_IMAGE = {"ImagePullBackOff", "ErrImagePull", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable"}
_CONFIG = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
_SANDBOX = {"FailedMount", "FailedAttachVolume", "FailedMapVolume", "FailedCreatePodSandBox", "NodeNotReady"}
_DISRUPTIONS = {
    "PreemptionByScheduler": "Preempted",
    "DeletionByTaintManager": "NodeLost",
    "DeletionByPodGC": "NodeLost",
}
_ENDINGS = {
    exit_codes.SPEC: "InvalidSpec",
    exit_codes.DIVERGED: "Diverged",
    exit_codes.RETRY: "Retry",
    exit_codes.WAITING: "Waiting",
}


def cause(diagnosis: Diagnosis, role: Role, attempt: int | None = None) -> Cause:
    """The gravest thing that the look shows of the pods of a role; `Starting` if it shows nothing that is wrong.

    With `attempt`, only that attempt of the learner counts.
    """
    pods = _pods(diagnosis, role, attempt)
    found = [
        *(cause for pod in pods for cause in _of_pod(pod, role)),
        *_of_claims(diagnosis),
        *_of_pod_events(diagnosis, pods),
        *_of_refusals(diagnosis, role, attempt, pods),
    ]
    return min(found, key=lambda cause: GRAVITY.index(cause.reason), default=STARTING)


def ending(diagnosis: Diagnosis, role: Role, attempt: int | None = None) -> Cause | None:
    """How the container of a role ended: the first failure, for it takes the others with it; None if none ended."""
    ends = [
        (pod, ended)
        for pod in _labelled(diagnosis, role, attempt)
        for status in pod.get("status", {}).get("containerStatuses", ())
        if status["name"] == role
        for ended in (_terminated(status),)
        if ended is not None
    ]
    if not ends:
        return None
    stopped = (exit_codes.OK, exit_codes.RETRY)
    pod, ended = min(ends, key=lambda end: (end[1]["exitCode"] in stopped, str(end[1].get("finishedAt", ""))))
    return _ended(pod, role, ended)


def _labelled(diagnosis: Diagnosis, role: Role, attempt: int | None) -> list[Manifest]:
    wanted = {ROLE_LABEL: role} | ({} if attempt is None else {ATTEMPT_LABEL: str(attempt)})
    return [pod for pod in diagnosis.pods if wanted.items() <= pod["metadata"].get("labels", {}).items()]


def _pods(diagnosis: Diagnosis, role: Role, attempt: int | None) -> list[Manifest]:
    """Pods of a role that count: not those that ended and were replaced since."""
    pods = _labelled(diagnosis, role, attempt)
    newest = max((_created(pod) for pod in pods), default=0.0)
    ended = ("Failed", "Succeeded")
    return [pod for pod in pods if pod.get("status", {}).get("phase") not in ended or _created(pod) >= newest]


def _of_pod(pod: Manifest, role: Role) -> Iterator[Cause]:
    status = pod.get("status", {})
    conditions = {condition["type"]: condition for condition in status.get("conditions", ())}
    disrupted = conditions.get("DisruptionTarget", {})
    if disrupted.get("status") == "True":
        reason = _DISRUPTIONS.get(disrupted.get("reason", ""), "Evicted")
        yield _cause(
            reason, f"pod {_name(pod)}: ", disrupted.get("message", ""), "it is replaced; nothing is lost", role
        )
        return
    if status.get("phase") == "Failed" and status.get("reason"):
        yield _refused_by_node(pod, role)
        return
    if pod["metadata"].get("deletionTimestamp"):
        return
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        yield _unscheduled(pod, role, scheduled)
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        yield from _of_container(pod, role, container)


def _unscheduled(pod: Manifest, role: Role, condition: Manifest) -> Cause:
    message = condition.get("message", "")
    if condition.get("reason") == "SchedulingGated":
        return _cause("SchedulingGated", f"pod {_name(pod)}: ", message, "it waits for its queue to admit it", role)
    if "persistentvolumeclaim" in message and "not found" in message:
        return _cause("ClaimLost", f"pod {_name(pod)}: ", message, "create it or correct spec.storage.claimName", role)
    devices = "spec.sampler.tensorParallel" if role == "sampler" else "spec.learner.processes"
    return _cause(
        "Unschedulable",
        f"no node fits pod {_name(pod)}: ",
        message,
        f"free or add nodes, or ask for less ({devices}, spec.{role}.podTemplate)",
        role,
    )


def _refused_by_node(pod: Manifest, role: Role) -> Cause:
    status = pod["status"]
    reason = status["reason"]
    if reason == "NodeLost":
        return _cause("NodeLost", f"pod {_name(pod)}: ", status.get("message", ""), "it is replaced", role)
    known = {"Evicted": "Evicted", "Preempting": "Preempted"}
    return _cause(
        known.get(reason, "PodRefused"),
        f"pod {_name(pod)}: {reason}: ",
        status.get("message", ""),
        f"the node could not keep it; give it larger requests in spec.{role}.podTemplate if this goes on",
        role,
    )


def _of_container(pod: Manifest, role: Role, status: Manifest) -> Iterator[Cause]:
    where = f"pod {_name(pod)}, container {status['name']}: "
    waiting = status.get("state", {}).get("waiting", {})
    reason, message = waiting.get("reason", ""), waiting.get("message", "")
    image = f"correct spec.{role}.image, or name its pull secret in spec.{role}.podTemplate"
    if reason == "InvalidImageName":
        yield _cause(reason, where, message, f"correct spec.{role}.image", role)
    elif reason in _IMAGE:
        yield _cause("ImagePullBackOff", where, message or reason, image, role)
    elif reason in _CONFIG:
        yield _cause(
            "CreateContainerConfigError",
            where,
            message or reason,
            f"create what is missing or correct spec.{role}.podTemplate",
            role,
        )
    ended = _terminated(status)
    if ended is not None and ended["exitCode"] != exit_codes.OK and not status.get("ready"):
        last = _ended(pod, status["name"], ended)
        crashing = reason == "CrashLoopBackOff" and last.reason != "OOMKilled"
        yield Cause(
            "CrashLoopBackOff" if crashing else last.reason if last.reason in GRAVITY else "Crashed", last.message
        )


def _terminated(status: Manifest) -> dict[str, Any] | None:
    """The newest end of a container."""
    now, before = status.get("state", {}).get("terminated"), status.get("lastState", {}).get("terminated")
    found: dict[str, Any] | None = now or before
    return found


def _ended(pod: Manifest, container: str, ended: Manifest) -> Cause:
    code = ended["exitCode"]
    where = f"container {container} of pod {_name(pod)}"
    if ended.get("reason") == "OOMKilled":
        return Cause(
            "OOMKilled",
            _fitted(f"{where} ran out of memory", "", "raise its memory limit in podTemplate or let it hold less"),
        )
    words = ended.get("message", "").strip()
    reason = _ENDINGS.get(code, "Crashed")
    remedy = f"`kubectl logs {_name(pod)} -c {container}` shows more, while the pod exists"
    return Cause(reason, _fitted(f"{where} ended with exit code {code}: ", words, remedy, tail=True))


def _of_claims(diagnosis: Diagnosis) -> Iterator[Cause]:
    for claim in diagnosis.claims:
        name, phase = claim["metadata"]["name"], claim.get("status", {}).get("phase")
        if phase == "Lost":
            yield Cause(
                "ClaimLost",
                _fitted(f"claim {name} lost its volume", "", "restore the volume, or delete run and claim"),
            )
        elif phase == "Pending":
            told = [
                event.get("message", "")
                for event in _newest_first(diagnosis)
                if _about(event) == ("PersistentVolumeClaim", name) and event["reason"] != "WaitForFirstConsumer"
            ]
            waits = any(event["reason"] == "WaitForFirstConsumer" for event in diagnosis.events)
            if told or not waits:
                remedy = "correct spec.storage (storageClassName, accessMode, size), or provide such a volume"
                yield Cause("ClaimPending", _fitted(f"claim {name} has no volume: ", told[0] if told else "", remedy))


def _of_pod_events(diagnosis: Diagnosis, pods: list[Manifest]) -> Iterator[Cause]:
    """What keeps the node from starting a pod; the pod itself says no more than ContainerCreating."""
    waiting = {_name(pod) for pod in pods if not _runs(pod)}
    present = {_name(pod) for pod in pods}
    for event in _newest_first(diagnosis):
        kind, name = _about(event)
        reason = event["reason"]
        if kind != "Pod" or reason not in _SANDBOX or name not in (present if reason == "NodeNotReady" else waiting):
            continue
        message = event.get("message", "")
        if reason == "NodeNotReady":
            yield Cause(
                "NodeLost",
                _fitted(
                    f"the node of pod {name} does not answer: ", message, "the pod is replaced when it is given up"
                ),
            )
        elif reason == "FailedCreatePodSandBox":
            yield Cause(
                reason,
                _fitted(f"pod {name}: ", message, "ask who runs the cluster; the node's network or runtime fails"),
            )
        else:
            remedy = "check that the claim can be mounted on that node and that Secrets and ConfigMaps exist"
            yield Cause("FailedMount", _fitted(f"pod {name}: ", message, remedy))


def _of_refusals(diagnosis: Diagnosis, role: Role, attempt: int | None, pods: list[Manifest]) -> Iterator[Cause]:
    """Why the API server lets no pod be created, unless one was since."""
    newest = max((_created(pod) for pod in pods), default=0.0)
    owner = "Job" if role == "learner" else "ReplicaSet"
    for event in _newest_first(diagnosis):
        kind, name = _about(event)
        other = attempt is not None and kind == "Job" and not name.endswith(f"-{attempt}")
        if event["reason"] != "FailedCreate" or kind != owner or other or _time_of(event) < newest:
            continue
        message = event.get("message", "")
        if "quota" in message:
            remedy = f"raise the quota of the namespace, or ask for less in spec.{role}"
            yield _cause("ExceededQuota", "", message, remedy, role)
        elif "violates PodSecurity" in message:
            remedy = f"take what violates it out of spec.{role}.podTemplate, or use another namespace"
            yield _cause("PodSecurityViolation", "", message, remedy, role)
        else:
            yield _cause("FailedCreate", "", message, f"correct spec.{role}.podTemplate", role)


def _cause(reason: str, before: str, quoted: str, remedy: str, role: Role) -> Cause:
    del role
    return Cause(reason, _fitted(before, quoted, remedy))


def _fitted(before: str, quoted: str, remedy: str, *, tail: bool = False) -> str:
    """One message of at most `LIMIT` characters; what is quoted gives way, its beginning if `tail`."""
    quoted = " ".join(quoted.split()).rstrip(".")
    room = LIMIT - len(before) - len(remedy) - 2
    if len(quoted) > room:
        quoted = f"…{quoted[-(room - 1) :]}" if tail else f"{quoted[: room - 1]}…"
    return f"{before}{quoted}; {remedy}"[:LIMIT]


def _name(pod: Manifest) -> str:
    return str(pod["metadata"]["name"])


def _runs(pod: Manifest) -> bool:
    return any("running" in status.get("state", {}) for status in pod.get("status", {}).get("containerStatuses", ()))


def _about(event: Manifest) -> tuple[str, str]:
    about = event.get("involvedObject", {})
    return str(about.get("kind", "")), str(about.get("name", ""))


def _newest_first(diagnosis: Diagnosis) -> list[Manifest]:
    return sorted(diagnosis.events, key=_time_of, reverse=True)


def _time_of(event: Manifest) -> float:
    """When an event happened last, in seconds since the epoch."""
    series = event.get("series") or {}
    stamp = series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
    return _seconds(stamp or event["metadata"].get("creationTimestamp"))


def _created(pod: Manifest) -> float:
    return _seconds(pod["metadata"].get("creationTimestamp"))


def _seconds(stamp: str | None) -> float:
    return datetime.fromisoformat(stamp).timestamp() if stamp else 0.0
