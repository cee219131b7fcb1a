"""How attempts of the learner ended, what that costs, and when the next one may start."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from empg import exit_codes
from empg.api.lifecycle import RestartsSpec
from empg_operator import names
from empg_operator.builders.learner import FAILURE_RULES
from empg_operator.plan.jobs import Ended, LearnerJob
from empg_operator.plan.situation import Situation
from empg_operator.plan.times import moment

End = Literal[
    "Complete", "InvalidSpec", "Diverged", "Evicted", "RefusedByNode", "Retry", "Waiting", "Crashed", "Vanished"
]
"""`Waiting`: it planned an E-step and left its GPUs to the samplers. `RefusedByNode`: the kubelet would not run a pod.
`Vanished`: somebody deleted its Job."""

_MEANINGS: dict[int | None, End] = {
    exit_codes.SPEC: "InvalidSpec",
    exit_codes.DIVERGED: "Diverged",
    None: "Evicted",
    exit_codes.RETRY: "Retry",
    exit_codes.WAITING: "Waiting",
}
RULES: tuple[End, ...] = tuple(_MEANINGS[code] for code in FAILURE_RULES)
"""What the rules of a Job's failure policy stand for, by index."""

VANISH_SECONDS = 30.0
"""The Job of an attempt so young is not asked for: it may just not have been seen yet."""
PATIENCE = 3
"""From so many ends on that are not the run's fault, without progress, the backoff holds after them too."""


@dataclass(frozen=True)
class Judged:
    """How an attempt ended."""

    attempt: int
    end: End
    message: str


@dataclass(frozen=True)
class Tally:
    """Where the attempts stand after all ends were taken into account."""

    judged: int
    """Newest attempt whose end is."""
    restarts: int
    fruitless: int
    uncharged: int
    not_before: float | None
    """No attempt starts before this moment."""
    ends: tuple[Judged, ...] = ()
    """Ends that were not taken into account before, oldest first."""
    unseen_until: float | None = None
    """Until then it is open whether the Job of the newest attempt vanished, or was not seen yet."""
    missing: str | None = None
    """Job that no list shows; it may have lost its labels, so it is asked for by name before it counts as gone."""

    @property
    def last(self) -> End | None:
        return self.ends[-1].end if self.ends else None


def tally(situation: Situation, *, over: bool) -> Tally:
    """Take every end into account that has not been: each once, in order.

    Args:
        situation: what is there.
        over: the run has ended before, and what becomes of its Job costs nothing any more.
    """
    status = situation.status
    result = Tally(
        judged=status.judged_attempt,
        restarts=status.restarts,
        fruitless=status.fruitless_restarts,
        uncharged=status.uncharged_ends,
        not_before=moment(status.next_attempt_time),
    )
    jobs = {job.attempt: job for job in situation.jobs}
    for attempt in sorted({*jobs, status.attempt, situation.attempt}):
        job, newest = jobs.get(attempt), attempt == situation.attempt
        if attempt <= status.judged_attempt:
            continue
        if job is not None and job.live and newest:
            return result
        name = names.learner_job(situation.name, attempt)
        if job is None and ("Job", name) not in situation.observed.absent:
            started = moment(status.attempt_start_time)
            due = 0.0 if started is None or not newest else started + VANISH_SECONDS
            if situation.now < due and not over and not situation.spec.suspend:
                return dataclasses.replace(result, unseen_until=due)
            return dataclasses.replace(result, missing=name)
        if over:
            result = dataclasses.replace(result, judged=attempt)
        elif job is not None and job.ended is not None:
            result = _charge(result, situation, Judged(attempt, end(job.ended, situation.alternate), job.ended.message))
        elif job is not None or situation.spec.suspend:
            # An older one goes on beside a newer one, or the user's suspension ended it.
            result = dataclasses.replace(result, judged=attempt)
        else:
            result = _charge(result, situation, Judged(attempt, "Vanished", "Its Job was deleted."))
    return result


def end(ended: Ended, alternate: bool) -> End:
    """What the end of a Job means. What no rule of its policy names is a crash, unless a look showed that none was."""
    if ended.complete:
        return "Complete"
    if ended.refused:
        return "RefusedByNode"
    meant: End = RULES[ended.rule] if ended.rule is not None and ended.rule < len(RULES) else "Crashed"
    return "Crashed" if meant == "Waiting" and not alternate else meant


def backoff(restarts: RestartsSpec, ends: int) -> float:
    """Seconds to wait after so many ends in a row that brought nothing."""
    if ends < 1:
        return 0.0
    # Beyond 2^32 every backoff is above the longest that the API allows, and a float would overflow in the end.
    return min(restarts.backoff_seconds * 2.0 ** min(ends - 1, 32), restarts.max_backoff_seconds)


def start(situation: Situation, counted: Tally, not_before: float | None, *, cleared: bool) -> int | None:
    """Number of the attempt to start now, if one is to start.

    Args:
        situation: what is there.
        counted: the attempts so far.
        not_before: no attempt starts before this moment.
        cleared: the devices are free for the learner.
    """
    waiting = not_before is not None and situation.now < not_before
    left = unwritten(situation) or any(job.untold and not job.deleted for job in situation.jobs)
    if situation.live is not None or left or counted.unseen_until is not None or waiting or not cleared:
        return None
    attempt = situation.next_attempt
    return None if situation.blocked("Job", names.learner_job(situation.name, attempt)) else attempt


def outdated(situation: Situation, revision: str | None) -> bool:
    """Whether the newest attempt, whose pods never were all there, waits with another template than an edit asks for:
    what keeps them from starting may be just what was edited. It is given up, at no cost.

    Args:
        situation: what is there.
        revision: of the template that is to be used; None or empty while there is none that is accepted.
    """
    job = situation.live
    if not revision or job is None or job.ending or job.deleted or job.all_ready or situation.progress is not None:
        return False
    return job.attempt == situation.attempt and job.revision not in (None, revision)


def unwritten(situation: Situation) -> bool:
    """Whether an end that no Job tells of is to be written down before anything is done about it: what a look showed
    is forgotten with the operator."""
    return any(job.inferred and job.attempt > situation.status.judged_attempt for job in situation.jobs)


def obsolete(situation: Situation, *, stop: bool) -> tuple[LearnerJob, ...]:
    """Jobs to delete: those that go on although they should not, and old ones, whose ends are written down.

    Of the ended ones the newest is kept, so that its pods can be looked at; but none whose end is not told.

    Args:
        situation: what is there; what is not written down yet leads to no deletion.
        stop: the run is to have no learner.
    """
    judged = situation.status.judged_attempt
    going = [job for job in situation.jobs if job.live or job.untold]
    ended = [job for job in situation.jobs if job not in going and job.attempt <= judged]
    unwanted = [job for job in going if stop or job.attempt <= judged or job.attempt < situation.attempt]
    return tuple(job for job in (*unwanted, *ended[:-1]) if not job.deleted)


def _charge(before: Tally, situation: Situation, judged: Judged) -> Tally:
    restarts, moved = situation.spec.restarts, situation.moved
    crashed = judged.end == "Crashed"
    free = judged.end in ("Evicted", "RefusedByNode", "Retry", "Vanished")
    fruitless = (0 if moved else before.fruitless) + crashed
    uncharged = (0 if moved or judged.end == "Waiting" else before.uncharged) + free
    wait = backoff(restarts, fruitless if crashed else uncharged - PATIENCE + 1 if free else 0)
    return Tally(
        judged=judged.attempt,
        restarts=before.restarts + crashed,
        fruitless=fruitless,
        uncharged=uncharged,
        not_before=situation.now + wait if wait else None,
        ends=(*before.ends, judged),
    )
