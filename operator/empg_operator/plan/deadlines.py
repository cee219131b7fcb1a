"""The clocks of a run, and what it means when one has run out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from empg.api.status import Clock, Step, Turn
from empg_operator.causes import GRAVITY
from empg_operator.plan.attempts import Tally
from empg_operator.plan.completion import Outcome
from empg_operator.plan.holding import without_samplers
from empg_operator.plan.queued import samplers_queued
from empg_operator.plan.situation import Situation
from empg_operator.plan.suspension import Spent
from empg_operator.plan.times import elapsed, moment, stamp

Wait = Literal["pods", "queue", "sampling", "learning", "nothing"]

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
    waited for: an eviction must not stretch the deadline. After a crash it stands still until the next attempt. A step
    that was interrupted goes on with the time that it took before."""
    before = situation.status.clock
    wait, iteration = _wait(situation, tally, turn, before) if running else _NOTHING
    if running and wait != "learning" and samplers_queued(situation, turn):
        wait, iteration = "queue", 0
    if before is not None and (before.waiting_for, before.iteration) == (wait, iteration):
        return before
    took = (step.seconds for step in _begun(situation) if (step.waiting_for, step.iteration) == (wait, iteration))
    return Clock(waiting_for=wait, iteration=iteration, since=stamp(situation.now), seconds=next(took, 0.0))


def interrupted(situation: Situation, now: Clock) -> tuple[Step, ...] | None:
    """Steps that were begun, and are neither finished nor what the clock says now; None without any."""
    running = now.waiting_for, now.iteration
    return tuple(step for step in _begun(situation) if (step.waiting_for, step.iteration) != running) or None


def _begun(situation: Situation) -> Iterator[Step]:
    """The steps that the status tells of, at most one of each kind, but for those that progress shows as finished. Who
    goes over earlier iterations again, after a restart, finishes none."""
    status = situation.status
    begun = {step.waiting_for: step for step in status.interrupted or ()}
    if (clock := status.clock) is not None and clock.waiting_for in ("sampling", "learning"):
        seconds = round(clock.seconds + elapsed(clock.since, situation.now), 3)
        begun[clock.waiting_for] = Step(waiting_for=clock.waiting_for, iteration=clock.iteration, seconds=seconds)
    reached = status.progress
    if reached is not None and reached.phase == "done":
        return
    for step in begun.values():
        learning = reached is not None and _PHASES.get(reached.phase) == "learning"
        if reached is None or (reached.iteration, learning) <= (step.iteration, step.waiting_for == "learning"):
            yield step


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
                f"{deadline.what} took longer than deadlines.{alias} ({limit:g}) allows. "
                f"{trouble(situation, 'Released')}"
                "Raise the limit in the next run if it is too low.",
            )
    return None


def trouble(situation: Situation, *reasons: str) -> str:
    """What was wrong with the pods, or said with another of these reasons; conditions will only say what followed."""
    for condition in situation.status.conditions:
        if condition.type == "Ready" and condition.status == "False" and condition.reason in (*GRAVITY, *reasons):
            return f"{condition.message} "
    return ""


def _running(situation: Situation, clock: Clock, spent: Spent, roll_started: str | None) -> Iterator[Deadline]:
    limits, iteration = situation.spec.deadlines, clock.iteration
    since = {clock.waiting_for: moment(clock.since), "roll": moment(roll_started)}
    for wait, key, reason, what in (
        ("pods", "pending_seconds", "PendingDeadlineExceeded", "Waiting for pods"),
        ("sampling", "sampling_seconds", "SamplingDeadlineExceeded", f"The E-step of iteration {iteration}"),
        ("learning", "learning_seconds", "LearningDeadlineExceeded", f"The M-step of iteration {iteration}"),
        ("roll", "rolling_seconds", "RollDeadlineExceeded", "Bringing a new policy to all samplers"),
    ):
        limit, start = getattr(limits, key), since.get(wait)
        if limit is not None and start is not None:
            yield Deadline(key, reason, what, start + limit - (0.0 if wait == "roll" else clock.seconds))
    if (ends := spent.ends(limits.run_seconds)) is not None:
        yield Deadline("run_seconds", "RunDeadlineExceeded", "The run", ends)


def _wait(situation: Situation, tally: Tally, turn: Turn, before: Clock | None) -> tuple[Wait, int]:
    status, job = situation.status, situation.live
    if job is not None and job.ending and before is not None:
        return before.waiting_for, before.iteration
    if turn == "samplers":
        if _lacks_samplers(situation, before):
            return "pods", 0
        return "sampling", status.progress.iteration if status.progress else 0
    if job is not None and job.all_ready:
        progress = situation.progress
        wait = _PHASES.get(progress.phase, "nothing") if progress else "nothing"
        if not situation.learns and not situation.alternate and _lacks_samplers(situation, before):
            return "pods", 0
        if wait == "sampling" and situation.alternate:
            # It leaves for the samplers in a moment, whose turn is the E-step.
            return (before.waiting_for, before.iteration) if before and before.waiting_for == "learning" else _NOTHING
        return (wait, progress.iteration) if progress and wait != "nothing" else _NOTHING
    waiting = before is not None and before.waiting_for == "pods"
    crashed = any(judged.end == "Crashed" for judged in tally.ends)
    return ("pods", 0) if job is not None or (waiting and not crashed) else _NOTHING


def _lacks_samplers(situation: Situation, before: Clock | None) -> bool:
    """Without a look that is not too old, what was so before still is."""
    lacks = without_samplers(situation)
    return before is not None and before.waiting_for == "pods" if lacks is None else lacks
