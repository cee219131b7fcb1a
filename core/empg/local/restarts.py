"""When a local child is started again, and when the run ends. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from empg.exit_codes import DIVERGED, OK, RETRY, SPEC

Role = Literal["learner", "sampler"]

BUDGET = 10
"""Crashes of one child within WINDOW_SECONDS after which the run ends."""
WINDOW_SECONDS = 600.0
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
    """Crashes of one child; old ones are forgiven."""

    budget: int = BUDGET
    crashes: list[float] = field(default_factory=list)

    def charge(self, now: float) -> float | None:
        """Count a crash at `now` (monotonic seconds): seconds to wait, or None when the budget is spent."""
        self.crashes = [at for at in self.crashes if now - at < WINDOW_SECONDS] + [now]
        if len(self.crashes) > self.budget:
            return None
        return min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** (len(self.crashes) - 1))


def after_exit(role: Role, name: str, code: int, budget: RestartBudget, now: float) -> Decision:
    """What follows when a child ended with `code` (negative: killed by that signal)."""
    if code == OK:
        return End(OK, "the run is complete") if role == "learner" else Leave()
    if code == SPEC:
        return End(SPEC, f"{name} can't use the manifest")
    if code == DIVERGED:
        return End(DIVERGED, f"{name} stopped the run: training diverged")
    delay = budget.charge(now)
    if delay is None:
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return End(code if code > 0 else 128 - code, f"{name} ended {budget.budget + 1} times, last with {how}")
    return Start(0.0 if code == RETRY else delay)
