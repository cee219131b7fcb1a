"""What events say of why pods do not come to run: claims without volume, pods that may not be created or started."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime

from empg_operator.cause_message import Cause, explained
from empg_operator.decision import Diagnosis, Manifest
from empg_operator.names import Role

_FORBIDDEN = re.compile(r'^(Error creating: )?pods? "[^"]*" is forbidden: ')
"""Begins a refusal, with a name that is another one at each try."""
_NOT_STARTED = {
    "FailedMount": "see that Secrets and ConfigMaps exist and that the claim can be mounted on that node",
    "FailedAttachVolume": "see that no other node holds the volume, or use storage.accessMode: ReadWriteMany",
    "FailedMapVolume": "see that the claim can be mounted on that node",
    "FailedCreatePodSandBox": "ask who runs the cluster: the node's network or container runtime fails",
}


def of_claims(diagnosis: Diagnosis) -> Iterator[Cause]:
    """Claims that have no volume."""
    for claim in diagnosis.claims:
        name, phase = claim["metadata"]["name"], (claim.get("status") or {}).get("phase")
        if phase == "Lost":
            yield explained("ClaimLost", f"Claim {name} lost its volume", "", "restore it, or delete run and claim")
        if phase != "Pending":
            continue
        told = [event for event in newest_first(diagnosis.events) if about(event) == ("PersistentVolumeClaim", name)]
        failures = [event for event in told if event.get("reason") not in ("WaitForFirstConsumer", "Provisioning")]
        # A claim may wait for its first pod to be scheduled, and is then made on that pod's node.
        if failures or not told:
            said = min(failures, key=lambda event: event.get("type") != "Warning").get("message") if failures else ""
            remedy = "correct spec.storage (storageClassName, accessMode, size), or provide such a volume"
            yield explained("ClaimPending", f"Claim {name} has no volume", said or "", remedy)


def of_refusals(events: Iterable[Manifest], role: Role, attempt: int | None, since: float) -> Iterator[Cause]:
    """Why the API server let no pod be created; a pod that was created later, at `since`, disproves it."""
    for event in newest_first(events):
        kind, name = about(event)
        ours = kind == ("Job" if role == "learner" else "ReplicaSet")
        other = attempt is not None and kind == "Job" and not name.endswith(f"-{attempt}")
        if event.get("reason") != "FailedCreate" or not ours or other or time_of(event) < since:
            continue
        said = _FORBIDDEN.sub("", event.get("message") or "")
        if "exceeded quota" in said or "failed quota" in said:
            remedy = f"raise the quota of the namespace, or ask for less in spec.{role}"
            yield explained("ExceededQuota", f"No {role} pod may be created", said, remedy)
        elif "violates PodSecurity" in said:
            remedy = f"take what violates it out of spec.{role}.podTemplate, or use another namespace"
            yield explained("PodSecurityViolation", f"No {role} pod may be created", said, remedy)
        else:
            remedy = f"correct spec.{role}.podTemplate, or what refuses it"
            yield explained("FailedCreate", f"No {role} pod can be created", said, remedy)


def of_pods(events: Iterable[Manifest], waiting: Iterable[str]) -> Iterator[Cause]:
    """What keeps a node from starting the pods of these names; such pods themselves say ContainerCreating, no more."""
    names = frozenset(waiting)
    for event in newest_first(events):
        kind, name = about(event)
        reason, said = event.get("reason", ""), event.get("message") or ""
        if kind != "Pod" or name not in names:
            continue
        if reason == "NodeNotReady":
            yield explained("NodeLost", f"The node of pod {name} does not answer", said, "the pod will be replaced")
        elif reason in _NOT_STARTED:
            yield explained(reason, f"Pod {name} can't be started", said, _NOT_STARTED[reason])


def about(event: Manifest) -> tuple[str, str]:
    """Kind and name of the object that an event is about."""
    found = event.get("involvedObject") or {}
    return found.get("kind", ""), found.get("name", "")


def newest_first(events: Iterable[Manifest]) -> list[Manifest]:
    return sorted(events, key=time_of, reverse=True)


def time_of(event: Manifest) -> float:
    """When an event happened last, in seconds since the epoch."""
    series = (event.get("series") or {}).get("lastObservedTime")
    return seconds(series or event.get("lastTimestamp") or event.get("eventTime") or created(event))


def created(manifest: Manifest) -> str | None:
    stamp: str | None = manifest["metadata"].get("creationTimestamp")
    return stamp


def seconds(stamp: str | None) -> float:
    """Seconds since the epoch of a time as the API has it; 0 for none."""
    return datetime.fromisoformat(stamp).timestamp() if stamp else 0.0
