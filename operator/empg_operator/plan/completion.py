"""The end of a run: why it ended, whether it goes on after all, and when its children go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from empg_operator.causes import Cause
from empg_operator.conditions import is_true
from empg_operator.plan.attempts import Judged, Tally
from empg_operator.plan.situation import Situation
from empg_operator.plan.times import moment


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    kind: Literal["Complete", "Failed"]
    reason: str
    message: str


def written(situation: Situation) -> Outcome | None:
    """The end that the status tells of, unless the run is to go on after it."""
    conditions = situation.status.conditions
    if failed := is_true(conditions, "Failed"):
        return Outcome("Failed", failed.reason, failed.message)
    complete = is_true(conditions, "Complete")
    if complete is None or _wants_more(situation, since=complete.observed_generation):
        return None
    return Outcome("Complete", complete.reason, complete.message)


def reopened(situation: Situation) -> bool:
    """The run was complete, and goes on."""
    return is_true(situation.status.conditions, "Complete") is not None and written(situation) is None


def reached(situation: Situation, tally: Tally, last_words: Cause | None) -> Outcome | None:
    """The end that the newest ends of attempts mean for the run.

    Args:
        situation: what is there.
        tally: the attempts so far.
        last_words: how the newest one ended, as a look at its pods told.
    """
    for judged in tally.ends:
        if judged.end == "Complete":
            if _reports_less(situation):
                return None
            return Outcome("Complete", "Trained", _trained(situation))
        if judged.end in ("InvalidSpec", "Diverged"):
            return Outcome("Failed", judged.end, _said(judged, last_words))
        if judged.end == "Crashed" and tally.restarts > situation.spec.restarts.limit:
            return Outcome(
                "Failed",
                "RestartLimitExceeded",
                f"The learner crashed {tally.restarts} times; restarts.limit is {situation.spec.restarts.limit}. "
                f"The last time: {_said(judged, last_words)}",
            )
    return None


def children_expire(situation: Situation) -> float | None:
    """When the children of a run that has ended are to go; None: never."""
    ended, ttl = moment(situation.status.completion_time), situation.spec.ttl_seconds_after_finished
    return None if ended is None or ttl is None else ended + ttl


def _wants_more(situation: Situation, since: int) -> bool:
    """`em.iterations` was raised after the run was complete.

    Without an edit it was not: a report that got lost may tell of fewer iterations than were made, and the run would
    be tried again for ever.
    """
    progress = situation.status.progress
    raised = progress is not None and progress.iterations < situation.spec.em.iterations
    return raised and situation.generation > since


def _reports_less(situation: Situation) -> bool:
    """`em.iterations` was raised when the newest attempt, as it says itself, did not look any more."""
    progress = situation.progress
    return progress is not None and progress.phase == "done" and progress.iterations < situation.spec.em.iterations


def _trained(situation: Situation) -> str:
    progress = situation.progress
    if progress is None:
        return "The learner has finished."
    version = "" if progress.policy_version is None else f"; the newest policy is {progress.policy_version}"
    return f"{progress.iteration} iterations are done{version}."


def _said(judged: Judged, last_words: Cause | None) -> str:
    return last_words.message if last_words else judged.message
