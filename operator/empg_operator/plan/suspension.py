"""What a run that waits for its user or its queue has, and the time that it does not spend."""

from __future__ import annotations

from dataclasses import dataclass

from empg_operator.plan.situation import Situation
from empg_operator.plan.times import elapsed, moment, stamp


@dataclass(frozen=True)
class Spent:
    """Time that counts against `deadlines.runSeconds`."""

    seconds: float
    """Up to `since`."""
    since: str | None
    """None: it stands still."""

    def total(self, now: float) -> float:
        return self.seconds + elapsed(self.since, now)

    def ends(self, limit: float | None) -> float | None:
        """When it reaches a limit, if it goes on."""
        start = moment(self.since)
        return None if start is None or limit is None else start + limit - self.seconds


def halted(situation: Situation) -> bool:
    """The run is to hold no device: its user suspended it, or its queue has not admitted it."""
    return situation.spec.suspend or situation.queued


def spent(situation: Situation, *, running: bool) -> Spent:
    """Time spent so far; it goes on while the run is `running`, waits for pods and restarts included."""
    status, now = situation.status, situation.now
    if not running:
        return Spent(status.active_seconds + elapsed(status.active_since, now), None)
    return Spent(status.active_seconds, status.active_since or stamp(now))
