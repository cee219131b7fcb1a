"""The course of a run: whether it goes on, what it waits for, and what it is to hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from empg.api.status import Clock, Lineage, Turn
from empg_operator.causes import Cause
from empg_operator.plan import completion
from empg_operator.plan.attempts import Tally, tally
from empg_operator.plan.completion import Outcome
from empg_operator.plan.deadlines import Deadline, clock, deadlines, passed
from empg_operator.plan.holding import Holding, holding, pause, releases
from empg_operator.plan.lineage import Missing
from empg_operator.plan.looks import last_words
from empg_operator.plan.roll import Roll, roll
from empg_operator.plan.samplers import replicas
from empg_operator.plan.situation import Situation
from empg_operator.plan.suspension import Spent, halted, spent
from empg_operator.plan.turns import turn


@dataclass(frozen=True)
class Course:
    """What the policies about the run as a whole decided."""

    over: bool
    """It has ended, and that is written down."""
    outcome: Outcome | None
    """How it ended, if it has."""
    reopened: bool
    """It was complete, and goes on."""
    running: bool
    """It is to hold devices: it has not ended, and nobody stopped it."""
    tally: Tally
    judged: int
    """Newest attempt that is done with: judged, or given up."""
    not_before: float | None
    last_words: Cause | None
    """How the attempt ended that failed just now."""
    turn: Turn
    clock: Clock
    spent: Spent
    holding: Holding
    released: bool
    """All devices are given back, as some were held in vain."""
    releases: int
    """Times that they were since an iteration was finished."""
    samplers: int
    """Sampler pods that are wanted."""
    roll: Roll
    limits: tuple[Deadline, ...]

    @property
    def only_write(self) -> bool:
        """The end, or the going on after it, is to be written down before anything is done about it."""
        return self.reopened or (self.outcome is not None and not self.over)

    def moments(self) -> Iterator[float]:
        """When something is due."""
        due = [self.tally.unseen_until, self.roll.again]
        if self.running:
            due += [self.not_before, self.holding.ends, *(deadline.ends for deadline in self.limits)]
        yield from (each for each in due if each is not None)


def course(situation: Situation, origin: Lineage | Missing | None) -> Course:
    """Decide about the run as a whole."""
    over = completion.written(situation)
    so_far = tally(situation, over=over is not None)
    words = last_words(situation, so_far)
    outcome = over or completion.reached(situation, so_far, words)
    running = outcome is None and not halted(situation) and not isinstance(origin, Missing)
    decided = _course(situation, so_far, running=running)
    if running and (late := passed(situation, decided.limits)) is not None:
        outcome, decided = late, _course(situation, so_far, running=False)
    return dataclasses.replace(
        decided,
        over=over is not None,
        outcome=outcome,
        reopened=completion.reopened(situation),
        not_before=None if outcome else decided.not_before,
        last_words=words,
    )


def _course(situation: Situation, so_far: Tally, *, running: bool) -> Course:
    whose = turn(situation, so_far)
    now_waiting = clock(situation, so_far, whose, running=running)
    time = spent(situation, running=running and now_waiting.waiting_for != "queue")
    held = holding(situation, whose, running=running)
    given_back = releases(situation, release=held.release)
    wanted = replicas(situation, whose, stopped=not running, released=held.release)
    rolled = roll(situation, wanted)
    again = situation.now + pause(situation.uid, situation.attempt, given_back) if held.release else None
    # Its Job is deleted now; who resumes the run at once need not wait until it is clear what became of it.
    given_up = situation.live is not None and (held.release or situation.spec.suspend)
    return Course(
        over=False,
        outcome=None,
        reopened=False,
        running=running,
        tally=so_far,
        judged=situation.attempt if given_up else so_far.judged,
        not_before=max((each for each in (so_far.not_before, again) if each is not None), default=None),
        last_words=None,
        turn=whose,
        clock=now_waiting,
        spent=time,
        holding=held,
        released=held.release,
        releases=given_back,
        samplers=wanted,
        roll=rolled,
        limits=deadlines(situation, now_waiting, time, None if rolled.unclear else rolled.started),
    )
