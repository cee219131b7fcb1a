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
_TROUBLE = (*GRAVITY, "TemplateRefused", "InvalidSpec", "ApplyFailed")
"""Reasons of `Ready` that tell what is wrong."""
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
    """What the run waits for, and in which iteration. It starts anew when that changes, but for what was interrupted,
    which goes on with the time that it took before: neither an eviction nor a queue nor another attempt must stretch a
    deadline. A wait for pods ends when all that are needed have run at one time. After a crash it stands still until
    the next attempt."""
    before = situation.status.clock
    wait, iteration = _wait(situation, tally, turn, before) if running else _NOTHING
    if running and wait != "learning" and samplers_queued(situation, turn):
        wait, iteration = "queue", 0
    if before is not None and (before.waiting_for, before.iteration) == (wait, iteration):
        return before
    return _started(situation, wait, iteration)


def starting(situation: Situation, clock: Clock) -> Clock:
    """The same when an attempt starts: it waits for its pods from now on."""
    return clock if clock.waiting_for == "pods" else _started(situation, "pods", _iteration(situation))


def interrupted(situation: Situation, now: Clock) -> tuple[Step, ...] | None:
    """Steps and waits that were begun, and are neither finished nor what the clock says now; None without any."""
    running = now.waiting_for, now.iteration
    return tuple(step for step in _begun(situation) if (step.waiting_for, step.iteration) != running) or None


def _started(situation: Situation, wait: Wait, iteration: int) -> Clock:
    took = (step.seconds for step in _begun(situation) if (step.waiting_for, step.iteration) == (wait, iteration))
    return Clock(waiting_for=wait, iteration=iteration, since=stamp(situation.now), seconds=next(took, 0.0))


def _begun(situation: Situation) -> Iterator[Step]:
    """The steps that the status tells of, at most one of each kind, but for those that progress shows as finished. Who
    goes over earlier iterations again, after a restart, finishes none."""
    status = situation.status
    begun = {step.waiting_for: step for step in status.interrupted or ()}
    if (clock := status.clock) is not None and clock.waiting_for in ("pods", "sampling", "learning"):
        seconds = round(clock.seconds + elapsed(clock.since, situation.now), 3)
        begun[clock.waiting_for] = Step(waiting_for=clock.waiting_for, iteration=clock.iteration, seconds=seconds)
    reached = status.progress
    if reached is not None and reached.phase == "done":
        return
    if _all_there(situation):
        begun.pop("pods", None)
    for step in begun.values():
        learning = reached is not None and _PHASES.get(reached.phase) == "learning"
        if reached is None or (reached.iteration, learning) <= (step.iteration, step.waiting_for == "learning"):
            yield step


def deadlines(situation: Situation, clock: Clock, spent: Spent, roll_started: str | None) -> tuple[Deadline, ...]:
    """Every deadline whose clock runs, the earliest first."""
    return tuple(sorted(_running(situation, clock, spent, roll_started), key=lambda deadline: deadline.ends))


def passed(situation: Situation, running: tuple[Deadline, ...]) -> Outcome | None:
    """The end that a run comes to when a deadline has passed. That samplers were missing must be sure: who decides may
    have been away while they came."""
    for deadline in running:
        if deadline.key == "pending_seconds" and not _certain(situation):
            continue
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
        if condition.type == "Ready" and condition.status == "False" and condition.reason in (*_TROUBLE, *reasons):
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
    job = situation.live
    pods: tuple[Wait, int] = ("pods", _iteration(situation))
    if job is not None and job.ending and before is not None:
        return before.waiting_for, before.iteration
    if turn == "samplers":
        return pods if _lacks_samplers(situation, before) else ("sampling", _iteration(situation))
    if job is not None and job.all_ready:
        progress = situation.progress
        wait = _PHASES.get(progress.phase, "nothing") if progress else "nothing"
        if not situation.learns and not situation.alternate and _lacks_samplers(situation, before):
            return pods
        if wait == "sampling" and situation.alternate:
            # It leaves for the samplers in a moment, whose turn is the E-step.
            return (before.waiting_for, before.iteration) if before and before.waiting_for == "learning" else _NOTHING
        return (wait, progress.iteration) if progress and wait != "nothing" else _NOTHING
    waiting = before is not None and before.waiting_for == "pods"
    crashed = any(judged.end == "Crashed" for judged in tally.ends)
    # An attempt that is due and can't be made, as its pods are refused, waits for them too.
    backs_off = situation.now < (moment(situation.status.next_attempt_time) or 0.0)
    due = not tally.ends and tally.unseen_until is None and not backs_off
    return pods if job is not None or due or (waiting and not crashed) else _NOTHING


def _iteration(situation: Situation) -> int:
    return situation.status.progress.iteration if situation.status.progress else 0


def _lacks_samplers(situation: Situation, before: Clock | None) -> bool:
    """Without a look that is not too old, what was so before still is."""
    lacks = without_samplers(situation)
    return before is not None and before.waiting_for == "pods" if lacks is None else lacks


def _all_there(situation: Situation) -> bool:
    """All pods that are needed now run, and a sampler is ready."""
    job = situation.live
    learner = job is not None and job.all_ready and not job.ending
    sampler = situation.spec.sampler.replicas == 0 or situation.samplers.ready > 0
    return learner or sampler if situation.alternate else learner and sampler


def _certain(situation: Situation) -> bool:
    """It is known, from a look where that takes one, whether pods are waited for."""
    job = situation.live
    waits_for_samplers = situation.status.turn == "samplers" or (job is not None and job.all_ready and not job.ending)
    return not waits_for_samplers or without_samplers(situation) is not None
