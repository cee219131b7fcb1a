"""What a sampler does next. Pure: decisions on what a survey of the run directory saw."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass

from empg.rundir.plan import Plan, Unit

SHORTEST_WAIT = 0.02
LONGEST_WAIT = 1.0
WAIT_SHARE = 0.02
"""An idle sampler looks again after this share of the time that it has been idle, within the bounds above (seconds)."""


@dataclass(frozen=True)
class OpenUnit:
    """A unit that may be claimed, as attempt `attempt`."""

    plan: Plan
    unit: Unit
    attempt: int
    failures: int = 0
    """Attempts at it that failed or whose holder died; perhaps it ends engines."""

    @property
    def sequences(self) -> int:
        """Answers to sample."""
        return len(self.unit.prompts) * self.plan.samples


@dataclass(frozen=True)
class Board:
    """What a survey saw of all iterations that are not sealed."""

    open: tuple[OpenUnit, ...]
    held: tuple[Plan, ...]
    """The plan of each unit that is held by somebody, ourselves among them; one entry per unit."""
    iterations: frozenset[tuple[str, int]]
    """Kind and number of all those iterations."""


def target_policy(
    current: int, available: Collection[int], board: Board, mine: Collection[Plan], *, steady: bool = False
) -> int:
    """Version to serve next.

    The newest one, but for evaluations: those of the current policy are claimed before it is left, units in hand that
    only it may answer are finished, and one that was missed is gone back for when there is nothing else to do. `mine`:
    plans of the units in hand. `steady`: never change while there are any.
    """
    newest = max({*available, current})
    if mine and (steady or any(not plan.admits(newest) for plan in mine)):
        return current
    plans = [unit.plan for unit in board.open]
    if any(plan.admits(current) and not plan.admits(newest) for plan in plans):
        return current
    if mine or any(plan.admits(newest) for plan in plans):
        return newest
    missed = [version for version in available if any(plan.admits(version) for plan in plans)]
    return max(missed, default=newest)


def in_order(board: Board, policy: int, sampler: str, *, leaving: bool = False) -> list[OpenUnit]:
    """Units that may be claimed with this policy, best first.

    Rollouts come before evaluations: the learner waits for rollouts, and evaluations fill the time in which it trains.
    `leaving`: there is a newer policy, and the evaluations of this one keep us from it; they come first then. Earlier
    iterations come first, and in them what failed least. Within a round, samplers start at different places, so that
    they do not all race for the same unit.
    """

    def place(unit: OpenUnit) -> tuple[bool, int, int, int, bytes]:
        spread = hashlib.blake2b(f"{sampler}|{unit.unit.name}".encode(), digest_size=8).digest()
        return (unit.plan.kind == "eval") is not leaving, unit.plan.iteration, unit.failures, unit.plan.round, spread

    return sorted((unit for unit in board.open if unit.plan.admits(policy)), key=place)


def claims_allowed(board: Board, policy: int, mine: int, samplers: int) -> int:
    """How many more units this sampler may take so that `samplers` of them have about the same number.

    `mine` is how many it holds. One that holds none may always take one.
    """
    unfinished = sum(unit.plan.admits(policy) for unit in board.open) + sum(plan.admits(policy) for plan in board.held)
    share = -(-unfinished // max(1, samplers))
    return max(share - mine, 0 if mine else 1)


def idle_wait(idle: float) -> float:
    """Seconds until an idle sampler looks again, after having been idle for `idle` seconds."""
    return min(max(idle * WAIT_SHARE, SHORTEST_WAIT), LONGEST_WAIT)
