"""What there is to see of a run, read from its directory a few times per second and no file twice."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from typing import Any

from empg.rundir.evaluations import greedy_accuracies
from empg.rundir.metrics import read_metrics
from empg.rundir.progress import Progress, read_progress
from empg.store.base import Store

LOOK_SECONDS = 0.5

Row = dict[str, Any]
"""Figures of one iteration."""


@dataclass
class Watch:
    """A view of one run that is brought up to date by `look`."""

    store: Store
    progress: Progress | None = None
    rows: list[Row] = field(default_factory=list)
    """By iteration."""
    accuracies: dict[int, float] = field(default_factory=dict)
    """Held-out greedy accuracy by policy version."""
    started: float = field(default_factory=time.monotonic)
    _looked: float = field(init=False, default=float("-inf"))

    def look(self, at_once: bool = False) -> bool:
        """Read what is new; False, and nothing done, when the last look was just now."""
        if not at_once and time.monotonic() - self._looked < LOOK_SECONDS:
            return False
        self.progress = read_progress(self.store)
        self.rows += read_metrics(self.store, since=self.rows[-1]["iteration"] + 1 if self.rows else 0)
        self.accuracies = greedy_accuracies(self.store, self.accuracies)
        self._looked = time.monotonic()
        return True

    @property
    def elapsed(self) -> str:
        """Time since the watch began."""
        return clock(time.monotonic() - self.started)

    @property
    def left(self) -> str:
        """Estimate of the time to the last iteration, from the median of the last 20; empty before the first."""
        recent = [row["seconds_total"] for row in self.rows[-20:] if row.get("seconds_total") is not None]
        if not recent or self.progress is None:
            return ""
        return clock(statistics.median(recent) * max(0, self.progress.iterations - len(self.rows)))


def clock(seconds: float) -> str:
    """Seconds as `1:23` or `2:03:04`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
