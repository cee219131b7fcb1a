"""Pods whose end nobody tells, as on a node that lost its power.

A pod has ended when the kubelet of its node says so, and a Job when each of its pods has. Where a kubelet does not
answer, both would go on for ever. So an end counts some time after it should have been told; should such a pod come
back, the run directory is closed to it.
"""

from __future__ import annotations

from dataclasses import dataclass

from empg_operator.decision import Diagnosis, Manifest
from empg_operator.names import ATTEMPT_LABEL, ROLE_LABEL
from empg_operator.plan.times import moment

TELL_SECONDS = 30.0
"""So soon after its grace period the end of a pod is told by a kubelet that answers."""
_GRACE_SECONDS = 30.0
"""Grace period of a pod that names none."""
_OVER = ("Failed", "Succeeded")


@dataclass(frozen=True)
class Untold:
    """A pod that was to end and has not, as far as is told."""

    pod: str
    node: str
    due: float
    """From then on its end counts, in seconds since the epoch."""


def due(job: Manifest, since: float) -> float:
    """When the end of a Job counts whose pods are about to stop since a moment."""
    grace = job["spec"].get("template", {}).get("spec", {}).get("terminationGracePeriodSeconds")
    return since + (_GRACE_SECONDS if grace is None else float(grace)) + TELL_SECONDS


def untold(look: Diagnosis, attempt: int) -> Untold | None:
    """The pod of an attempt that was to end first of those that have not."""
    labels = {ROLE_LABEL: "learner", ATTEMPT_LABEL: str(attempt)}
    found = []
    for pod in look.pods:
        about = pod["metadata"]
        stops = moment(about.get("deletionTimestamp"))  # with its grace period
        mine = labels.items() <= (about.get("labels") or {}).items()
        if mine and stops is not None and (pod.get("status") or {}).get("phase") not in _OVER:
            found.append(Untold(about["name"], pod["spec"].get("nodeName") or "", stops + TELL_SECONDS))
    return min(found, key=lambda one: one.due, default=None)


def lost(look: Diagnosis, attempt: int) -> Untold | None:
    """The same, if its end was due when the look was taken."""
    found = untold(look, attempt)
    return found if found is not None and found.due <= look.taken else None
