"""The Job of an attempt, as far as planning reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from empg_operator.builders.learner import FAILURE_RULES
from empg_operator.causes import refusal
from empg_operator.decision import Diagnosis, Manifest
from empg_operator.names import REVISION_LABEL
from empg_operator.plan.lost import Untold, due, lost
from empg_operator.plan.times import moment

TOLD_SECONDS = 10.0
"""An attempt that stops in less is told of when it has ended, and not before."""
_DISRUPTION = FAILURE_RULES.index(None)


@dataclass(frozen=True)
class Ended:
    """How a Job ended."""

    complete: bool
    rule: int | None = None
    """Index of the rule of its failure policy that ended it; None: it completed, or no rule did."""
    message: str = ""
    refused: bool = False
    """A node refused one of its pods, as far as a look shows: to the Job that is a failure like any other."""


@dataclass(frozen=True)
class LearnerJob:
    """The Job of one attempt."""

    attempt: int
    name: str
    uid: str | None
    revision: str | None
    """ControllerRevision that holds its pod template."""
    pods: int
    """Pods that it is made of."""
    ready: int
    suspended: bool
    """Kueue keeps it in its queue."""
    ending: Ended | None
    """Its end is certain, but some of its pods still are about to stop; what is ready says nothing any more."""
    ending_since: float | None
    due: float | None
    """When an end that is certain counts, told or not."""
    deleted: bool
    """It is to go, and does when its finalizers let it."""
    ended: Ended | None
    untold: bool
    """It counts as ended, but nobody tells that it has."""

    @property
    def live(self) -> bool:
        return self.ended is None

    @property
    def inferred(self) -> bool:
        """Its end, or what that means, follows from what a look showed or from the time, and is forgotten with it."""
        return self.untold or (self.ended is not None and self.ended.refused)

    @property
    def all_ready(self) -> bool:
        return self.live and not self.suspended and self.ready >= self.pods

    @property
    def stops_from(self) -> float | None:
        """From when on the run tells that this attempt is about to stop."""
        return None if self.ending_since is None else self.ending_since + TOLD_SECONDS


def read_job(attempt: int, manifest: Manifest, look: Diagnosis | None, now: float) -> LearnerJob:
    """Read a Job. Its end may follow from what a node does not tell, by the newest look or by the time.

    Kueue suspends a Job whose pods then end: where one of them does by a rule of the failure policy before it is gone,
    the Job is to fail, but can't, as one that has ended needs a start time and a suspended one has none.
    """
    spec, status = manifest["spec"], manifest.get("status") or {}
    suspended = spec.get("suspend", False)
    over = condition(manifest, "Complete") or condition(manifest, "Failed")
    target = condition(manifest, "SuccessCriteriaMet") or condition(manifest, "FailureTarget")
    since = moment(target.get("lastTransitionTime")) if target else None
    counts = None if since is None else due(manifest, since)
    ending = _ended(target) if target else None
    ended, untold = _ended(over) if over else None, None
    if ended is None and ending is not None:
        if suspended:
            untold = ending
        elif counts is not None and counts <= now:
            untold = _beside_a_lost_node(ending)
    elif ended is None and look is not None and not suspended:
        untold = _of_a_lost_pod(lost(look, attempt))
    if ended is not None:
        ended = _of_a_refused_pod(ended, look, attempt)
    return LearnerJob(
        attempt=attempt,
        name=manifest["metadata"]["name"],
        uid=manifest["metadata"].get("uid"),
        revision=(manifest["metadata"].get("labels") or {}).get(REVISION_LABEL),
        pods=max(spec.get("parallelism", 1), 1),
        ready=status.get("ready", 0),
        suspended=suspended,
        ending=ending,
        ending_since=since,
        due=counts,
        deleted="deletionTimestamp" in manifest["metadata"],
        ended=ended or untold,
        untold=untold is not None,
    )


def condition(manifest: Manifest, kind: str) -> Mapping[str, Any] | None:
    """The condition of this type of any object, if it is true."""
    conditions = (manifest.get("status") or {}).get("conditions") or ()
    return next((each for each in conditions if each["type"] == kind and each["status"] == "True"), None)


def _ended(said: Mapping[str, Any]) -> Ended:
    if said["type"] in ("Complete", "SuccessCriteriaMet"):
        return Ended(complete=True)
    message = said.get("message", "")
    rule = re.search(r"rule at index (\d+)", message) if said.get("reason") == "PodFailurePolicy" else None
    return Ended(complete=False, rule=int(rule[1]) if rule else None, message=message)


def _beside_a_lost_node(ending: Ended) -> Ended:
    """A crash there is taken for what the loss of the node led to."""
    if ending.complete:
        return ending
    said = f"{ending.message.removesuffix('.')}; a node does not tell that its pods have ended"
    return Ended(complete=False, rule=_DISRUPTION if ending.rule is None else ending.rule, message=said)


def _of_a_refused_pod(ended: Ended, look: Diagnosis | None, attempt: int) -> Ended:
    """A pod without exit code and disruption matches no rule. Without a look such an end is one that wants one."""
    if ended.complete or ended.rule is not None or look is None:
        return ended
    why = refusal(look, "learner", attempt)
    return ended if why is None else Ended(complete=False, message=why.message, refused=True)


def _of_a_lost_pod(pod: Untold | None) -> Ended | None:
    if pod is None:
        return None
    said = f"Pod {pod.pod} was to end, and node {pod.node} does not tell that it has"
    return Ended(complete=False, rule=_DISRUPTION, message=said)
