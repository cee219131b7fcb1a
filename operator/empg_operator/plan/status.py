"""The status as it is to be written."""

from __future__ import annotations

from typing import Any

from empg.api.status import Lineage, Revisions, RunStatus
from empg_operator import names
from empg_operator.decision import Manifest
from empg_operator.plan.deadlines import interrupted, starting
from empg_operator.plan.explain import Picture, conditions, phase
from empg_operator.plan.situation import Situation
from empg_operator.plan.standing import storage
from empg_operator.plan.times import stamp, stamp_after

OTHERS = ("progress", "recent", "sampled")
"""Fields that learner and samplers write."""


def assemble(picture: Picture) -> RunStatus:
    """The new status: a whole one, so that what is not said any more goes away."""
    situation, course, before = picture.situation, picture.course, picture.situation.status
    now, attempt = stamp(situation.now), picture.started or situation.attempt
    newer = attempt > before.attempt
    clock = starting(situation, course.clock) if picture.started else course.clock
    sampler, learner = (template.revision for template in picture.templates)
    return RunStatus(
        observed_generation=situation.generation,
        phase=phase(picture),
        conditions=conditions(picture),
        attempt=attempt,
        restarts=course.tally.restarts,
        fruitless_restarts=course.tally.fruitless,
        uncharged_ends=course.tally.uncharged,
        attempt_start_time=now if newer else before.attempt_start_time,
        attempt_iteration=_iteration(situation, attempt) if newer else before.attempt_iteration,
        judged_attempt=course.judged,
        next_attempt_time=None if picture.started or course.not_before is None else stamp_after(course.not_before),
        turn=course.turn,
        start_time=before.start_time or now,
        active_seconds=round(course.spent.seconds, 3),
        active_since=course.spent.since,
        completion_time=(before.completion_time or now) if course.outcome else None,
        clock=clock,
        interrupted=interrupted(situation, clock),
        held_since=None if course.released else course.holding.since,
        releases=course.releases,
        rolled_policy=course.roll.policy,
        roll_started=course.roll.started,
        laggard_deleted=course.roll.laggard_deleted,
        samplers=picture.samplers,
        selector=",".join(f"{key}={value}" for key, value in names.selector(situation.name, "sampler").items()),
        revisions=Revisions(sampler=sampler or before.revisions.sampler, learner=learner or before.revisions.learner),
        storage=storage(situation),
        lineage=picture.lineage if isinstance(picture.lineage, Lineage) else None,
    )


def ours(status: RunStatus) -> dict[str, Any]:
    """What the operator writes of a status, as JSON data."""
    return status.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=set(OTHERS))


def differs(status: RunStatus, run: Manifest) -> bool:
    """Whether the run has another status than this one, as far as it is the operator's."""
    known = {info.alias for name, info in RunStatus.model_fields.items() if name not in OTHERS}
    present = run.get("status") or {}
    return ours(status) != {key: value for key, value in present.items() if key in known}


def _iteration(situation: Situation, attempt: int) -> int:
    """Where an attempt starts. One that has reported already is further, so what was known before it stays."""
    progress, before = situation.status.progress, situation.status
    return progress.iteration if progress and progress.attempt < attempt else before.attempt_iteration
