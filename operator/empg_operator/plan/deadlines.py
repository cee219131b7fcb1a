"""The clocks of a run, and what it means when one has run out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from empg.api.status import Clock, Turn
from empg_operator.causes import GRAVITY
from empg_operator.plan.attempts import Tally
from empg_operator.plan.completion import Outcome
from empg_operator.plan.situation import Situation
from empg_operator.plan.suspension import Spent
from empg_operator.plan.times import moment, stamp

Wait = Literal["pods", "sampling", "learning", "nothing"]

_NOTHING: tuple[Wait, int] = ("nothing", 0)
_PHASES: dict[str, Wait] = {"sampling": "sampling", "learning": "learning", "publishing": "learning"}


@dataclass(frozen=True)
class Deadline:
    """A clock that has a limit."""

    key: str
    """Field of `spec.deadlines`."""
    reason: str
    what: str
    ends: float


def clock(situation: Situation, tally: Tally, turn: Turn, *, running: bool) -> Clock:
    """What the run waits for. It starts anew when that changes, and goes on from attempt to attempt while pods are
    waited for: an eviction must not stretch the deadline. After a crash it stands still until the next attempt."""
    before, stopped = situation.status.clock, Clock(waiting_for="nothing", since=stamp(situation.now))
    wait, iteration = _wait(situation, tally, turn, before) if running else _NOTHING
    if before is not None and (before.waiting_for, before.iteration) == (wait, iteration):
        return before
    return stopped.model_copy(update={"waiting_for": wait, "iteration": iteration})


def deadlines(situation: Situation, clock: Clock, spent: Spent, roll_started: str | None) -> tuple[Deadline, ...]:
    """Every deadline whose clock runs, the earliest first."""
    return tuple(sorted(_running(situation, clock, spent, roll_started), key=lambda deadline: deadline.ends))


def passed(situation: Situation, running: tuple[Deadline, ...]) -> Outcome | None:
    """The end that a run comes to when a deadline has passed."""
    for deadline in running:
        if deadline.ends <= situation.now:
            limit = getattr(situation.spec.deadlines, deadline.key)
            alias = type(situation.spec.deadlines).model_fields[deadline.key].alias
            return Outcome(
                "Failed",
                deadline.reason,
                f"{deadline.what} took longer than deadlines.{alias} ({limit:g}) allows. {_trouble(situation)}"
                "Raise the limit in the next run if it is too low.",
            )
    return None


def _trouble(situation: Situation) -> str:
    """What was wrong with the pods; conditions will only say that the run has ended."""
    for condition in situation.status.conditions:
        if condition.type == "Ready" and condition.status == "False" and condition.reason in GRAVITY:
            return f"{condition.message} "
    return ""


def _running(situation: Situation, clock: Clock, spent: Spent, roll_started: str | None) -> Iterator[Deadline]:
    limits, iteration = situation.spec.deadlines, clock.iteration
    since = {clock.waiting_for: moment(clock.since), "roll": moment(roll_started)}
    for wait, key, reason, what in (
        ("pods", "pending_seconds", "PendingDeadlineExceeded", "Waiting for the learner's pods"),
        ("sampling", "sampling_seconds", "SamplingDeadlineExceeded", f"The E-step of iteration {iteration}"),
        ("learning", "learning_seconds", "LearningDeadlineExceeded", f"The M-step of iteration {iteration}"),
        ("roll", "rolling_seconds", "RollDeadlineExceeded", "Bringing a new policy to all samplers"),
    ):
        limit, start = getattr(limits, key), since.get(wait)
        if limit is not None and start is not None:
            yield Deadline(key, reason, what, start + limit)
    if (ends := spent.ends(limits.run_seconds)) is not None:
        yield Deadline("run_seconds", "RunDeadlineExceeded", "The run", ends)


def _wait(situation: Situation, tally: Tally, turn: Turn, before: Clock | None) -> tuple[Wait, int]:
    status, job = situation.status, situation.live
    if job is not None and job.ending and before is not None:
        return before.waiting_for, before.iteration
    if turn == "samplers":
        return "sampling", status.progress.iteration if status.progress else 0
    if job is not None and job.all_ready:
        progress = situation.progress
        wait = _PHASES.get(progress.phase, "nothing") if progress else "nothing"
        if wait == "sampling" and situation.alternate:
            # It leaves for the samplers in a moment, whose turn is the E-step.
            return (before.waiting_for, before.iteration) if before and before.waiting_for == "learning" else _NOTHING
        return (wait, progress.iteration) if progress and wait != "nothing" else _NOTHING
    waiting = before is not None and before.waiting_for == "pods"
    crashed = any(judged.end == "Crashed" for judged in tally.ends)
    return ("pods", 0) if job is not None or (waiting and not crashed) else _NOTHING
