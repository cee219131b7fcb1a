"""When a look at pods, claims and their events is worth its requests."""

from __future__ import annotations

import math
from dataclasses import dataclass

from empg.api.status import Clock, Turn
from empg_operator.causes import Cause, ending
from empg_operator.decision import Diagnosis
from empg_operator.plan.attempts import Tally
from empg_operator.plan.lost import untold
from empg_operator.plan.situation import Situation
from empg_operator.plan.times import moment, soonest

GRACE_SECONDS = 20.0
"""Pods that are wanted for less are not looked after: most of them just start."""
LOOK_SECONDS = 60.0
"""A look so old is renewed while pods are missing."""
END_SECONDS = 5.0
"""A look so old may be from before the end that it is to explain; so is a newer one that does not show it."""

EXPLAINED = ("Crashed", "InvalidSpec", "Diverged", "Retry")
"""Ends that a look at the pods explains."""


@dataclass(frozen=True)
class Look:
    """Whether to look now, and when to think of it again."""

    now: bool
    again: float | None = None


def look(situation: Situation, tally: Tally, turn: Turn, clock: Clock, desired: int) -> Look:
    """Look when an attempt failed, and while a child that is wanted has no ready pod."""
    if failed := _failed(tally):
        taken = situation.look(END_SECONDS)
        return Look(now=taken is None or (taken.taken < situation.now and ending(taken, "learner", failed) is None))
    since = soonest(_learner_wanted(situation, clock), _samplers_wanted(situation, turn, clock, desired))
    if since is None:
        return Look(now=False)
    due = since + GRACE_SECONDS
    taken = situation.look(LOOK_SECONDS)
    if taken is not None:
        due = max(due, min(taken.taken + LOOK_SECONDS, _lost_at(situation, taken)))
    return Look(now=situation.now >= due, again=None if situation.now >= due else due)


def last_words(situation: Situation, tally: Tally) -> Cause | None:
    """How the container of the newest attempt that failed ended, as far as a look shows it."""
    failed, taken = _failed(tally), situation.look(LOOK_SECONDS)
    return ending(taken, "learner", failed) if failed and taken is not None else None


def _failed(tally: Tally) -> int | None:
    """The newest attempt whose end wants to be explained."""
    return max((judged.attempt for judged in tally.ends if judged.end in EXPLAINED), default=None)


def _learner_wanted(situation: Situation, clock: Clock) -> float | None:
    """Since when the learner's pods are waited for."""
    job = situation.live
    if job is None or job.ending or clock.waiting_for != "pods":
        return None
    started = moment(situation.status.attempt_start_time) or 0.0
    return max(started, moment(clock.since) or 0.0)


def _lost_at(situation: Situation, taken: Diagnosis) -> float:
    """When the end of a learner's pod is due that had not ended when it was looked at."""
    pod = untold(taken, situation.attempt)
    return math.inf if pod is None or pod.due <= taken.taken else pod.due


def _samplers_wanted(situation: Situation, turn: Turn, clock: Clock, desired: int) -> float | None:
    """Since when a sampler is waited for: the learner's pods run since then, or have left."""
    if desired == 0 or situation.samplers.ready > 0:
        return None
    if turn == "samplers":
        return moment(clock.since)
    learner = next((each for each in situation.status.conditions if each.type == "LearnerReady"), None)
    ready = learner is not None and learner.status == "True"
    return moment(learner.last_transition_time) if learner is not None and ready else None
