"""Hold and wait: half of what a run needs is given back, so that two such runs do not wait for each other."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from empg.api.status import Turn
from empg_operator import names
from empg_operator.decision import Diagnosis
from empg_operator.plan.situation import Situation
from empg_operator.plan.times import moment, stamp
from empg_operator.pod_causes import failing

PAUSE_SECONDS = (30.0, 120.0)
"""Bounds of the pause after which a run that gave all back tries again for the first time."""
MAX_PAUSE_SECONDS = 3600.0
"""Longest such pause."""
LOOK_SECONDS = 60.0
"""A look at the pods so old still tells whether a sampler has its devices."""


@dataclass(frozen=True)
class Holding:
    """Whether a run holds devices in vain."""

    since: str | None
    """None: it has all that it needs, or nothing."""
    release: bool = False
    """Give all back now."""
    ends: float | None = None
    """When it is to."""


def holding(situation: Situation, turn: Turn, *, running: bool) -> Holding:
    """A run holds in vain while only some pods of the learner run, only its samplers, or only its learner, unless that
    learns.

    A sampler without a policy is not ready, but has its devices: only a look at the pods tells it from one that waits
    for them, so a learner whose pods all run gives nothing back without a look.
    """
    job, before, limit = situation.live, situation.status.held_since, situation.spec.deadlines.hold_seconds
    if job is not None and job.ending:
        return Holding(before)
    if not running or not _in_vain(situation, turn):
        return Holding(None)
    since = before if moment(before) is not None else stamp(situation.now)
    if limit is None:
        return Holding(since)
    ends = (moment(since) or situation.now) + limit
    certain = job is None or not job.all_ready or situation.look(LOOK_SECONDS) is not None
    return Holding(since, release=certain and situation.now >= ends, ends=ends)


def pause(uid: str, attempt: int, releases: int = 1) -> float:
    """Seconds until a run that gave all back tries again: the same for the same attempt, another for another run.

    `releases`: times that it did so without finishing an iteration, this time included.
    """
    least, most = PAUSE_SECONDS
    draw = int.from_bytes(hashlib.sha256(f"{uid}/{attempt}".encode()).digest()[:8]) / 2**64
    # Beyond 2^7 every pause is the longest.
    return min((least + draw * (most - least)) * 2.0 ** min(releases - 1, 7), MAX_PAUSE_SECONDS)


def releases(situation: Situation, *, release: bool) -> int:
    """Times that all was given back since an iteration was finished, this time included."""
    return (0 if situation.moved else situation.status.releases) + release


def without_samplers(situation: Situation) -> bool | None:
    """No sampler has its devices, though some are to; None if that takes a look at the pods."""
    if situation.spec.sampler.replicas == 0 or situation.samplers.ready > 0:
        return False
    look = situation.look(LOOK_SECONDS)
    return None if look is None else not samplers_run(look)


def samplers_run(diagnosis: Diagnosis) -> bool:
    """A sampler pod has its devices, ready or not. One that crashes again and again, or is on its way out, perhaps for
    ever on a node that is lost, has them in vain."""
    return any(
        pod["metadata"].get("labels", {}).get(names.ROLE_LABEL) == "sampler"
        and "deletionTimestamp" not in pod["metadata"]
        and (pod.get("status") or {}).get("phase") == "Running"
        and not failing(pod)
        for pod in diagnosis.pods
    )


def _in_vain(situation: Situation, turn: Turn) -> bool:
    job = situation.live
    if turn == "samplers":
        return False
    learner, whole = job is not None and job.ready > 0, job is not None and job.all_ready
    if not whole:
        return learner or situation.samplers.ready > 0
    return not (situation.learns or situation.alternate) and without_samplers(situation) is not False
