"""When a local child is started again, and when the run ends. Pure."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Literal

from empg.exit_codes import DIVERGED, OK, RETRY, SPEC

Role = Literal["learner", "sampler"]

BUDGET = 10
"""Failures of one child that a run gets over without finishing an iteration."""
FIRST_DELAY_SECONDS = 0.5
LONGEST_DELAY_SECONDS = 30.0


@dataclass(frozen=True)
class Start:
    """Start the child again after `delay` seconds."""

    delay: float


@dataclass(frozen=True)
class End:
    """End the run with this exit code."""

    code: int
    reason: str


@dataclass(frozen=True)
class Leave:
    """Leave the child stopped: it has nothing more to do."""


Decision = Start | End | Leave


@dataclass
class RestartBudget:
    """Failures of one child since the run last got on, however far apart they are."""

    budget: int = BUDGET
    fruitless: int = 0
    """Failures in a row between which no iteration was finished."""
    newest: int | None = None
    """Newest finished iteration at the last failure."""

    def charge(self, newest: int) -> float | None:
        """Count a failure with `newest` as the newest finished iteration: seconds to wait, or None: none is left."""
        moved = self.newest is not None and newest > self.newest
        self.fruitless = 1 if moved else self.fruitless + 1
        self.newest = newest
        if self.fruitless > self.budget:
            return None
        # Beyond 2^16 every delay is above the longest, and a float would overflow in the end.
        return min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(self.fruitless - 1, 16))


def after_exit(role: Role, name: str, code: int, budget: RestartBudget, newest: int) -> Decision:
    """What follows when a child ended with `code` (negative: killed by that signal).

    `newest` is the newest finished iteration, -1 for none.
    """
    if code == OK:
        return End(OK, "the run is complete") if role == "learner" else Leave()
    if code == SPEC:
        return End(SPEC, f"{name} can't use the manifest")
    if code == DIVERGED:
        return End(DIVERGED, f"{name} stopped the run: training diverged")
    # A sampler ends so when it was asked to, or starts anew for a longer context; a learner when it gave up.
    if role == "sampler" and code in (RETRY, -signal.SIGTERM):
        return Start(0.0)
    delay = budget.charge(newest)
    if delay is None:
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return End(
            code if code > 0 else 128 - code,
            f"{name} ended {budget.fruitless} times without a finished iteration between, last with {how}",
        )
    return Start(0.0 if code == RETRY else delay)
