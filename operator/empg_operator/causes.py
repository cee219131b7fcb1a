"""Why the pods of a run are not what they should be: from a look at pods, claims and events to one sentence."""

from __future__ import annotations

from empg_operator.cause_message import LIMIT, Cause
from empg_operator.decision import Diagnosis, Manifest
from empg_operator.event_causes import created, of_claims, of_pods, of_refusals, seconds
from empg_operator.names import ATTEMPT_LABEL, ROLE_LABEL, Role
from empg_operator.pod_causes import crashed, ends, of_pod, refused, runs

__all__ = ["GRAVITY", "LIMIT", "STARTING", "Cause", "cause", "ending", "refusal"]

GRAVITY = (
    "InvalidImageName",
    "ImagePullBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "PodSecurityViolation",
    "FailedCreate",
    "ExceededQuota",
    "OOMKilled",
    "CrashLoopBackOff",
    "Crashed",
    "ClaimMissing",
    "ClaimLost",
    "ClaimPending",
    "FailedMount",
    "FailedAttachVolume",
    "FailedMapVolume",
    "FailedCreatePodSandBox",
    "Unschedulable",
    "SchedulingGated",
    "NodeLost",
    "Preempted",
    "Evicted",
    "RefusedByNode",
)
"""All reasons. What only the user can mend comes first, and what explains others before them: a claim without volume
makes pods unschedulable, not the other way round."""

STARTING = Cause(
    "Starting", "Pods are being created, or load their model; `kubectl describe pods` shows how far they are."
)


def cause(diagnosis: Diagnosis, role: Role, attempt: int | None = None) -> Cause:
    """The gravest thing that the look shows of the pods of a role; `STARTING` if it shows nothing that is wrong.

    With `attempt`, only that attempt of the learner counts.
    """
    pods = _labelled(diagnosis, role, attempt)
    newest = max((seconds(created(pod)) for pod in pods), default=0.0)
    current = [pod for pod in pods if not _over(pod) or seconds(created(pod)) >= newest]
    waiting = [pod["metadata"]["name"] for pod in current if not runs(pod)]
    found = [
        *(cause for pod in current for cause in of_pod(pod, role)),
        *of_claims(diagnosis),
        *of_pods(diagnosis.events, waiting),
        *of_refusals(diagnosis.events, role, attempt, newest),
    ]
    return min(found, key=lambda cause: GRAVITY.index(cause.reason), default=STARTING)


def ending(diagnosis: Diagnosis, role: Role, attempt: int | None = None) -> Cause | None:
    """How the container of a role ended, None if none did. Of several the first that failed: it took the others along.

    The reason is `InvalidSpec`, `Diverged`, `Retry`, `Waiting`, `OOMKilled` or `Crashed`.
    """
    found = [end for pod in _labelled(diagnosis, role, attempt) for end in ends(pod, role)]
    return min(found, key=lambda end: end[:2])[2] if found else None


def refusal(diagnosis: Diagnosis, role: Role, attempt: int | None = None) -> Cause | None:
    """Why a node refused a pod of a role or gave it up; None if none did, or if that may follow from a crash.

    What becomes of pods that are being deleted, as the others of a gang are, follows from the refusal.
    """
    pods = _labelled(diagnosis, role, attempt)
    if any(crashed(pod) for pod in pods if "deletionTimestamp" not in pod["metadata"]):
        return None
    return next((cause for pod in pods if refused(pod) for cause in of_pod(pod, role)), None)


def _labelled(diagnosis: Diagnosis, role: Role, attempt: int | None) -> list[Manifest]:
    wanted = {ROLE_LABEL: role} | ({} if attempt is None else {ATTEMPT_LABEL: str(attempt)})
    return [pod for pod in diagnosis.pods if wanted.items() <= (pod["metadata"].get("labels") or {}).items()]


def _over(pod: Manifest) -> bool:
    """Whether a pod ended; one that another pod replaced since explains nothing any more."""
    return (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded")
