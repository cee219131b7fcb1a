"""Whether the sampler's loop lives, and whether it serves a policy: what the kubelet asks."""

from __future__ import annotations

import time
from collections.abc import Callable

LOOP_SECONDS = 60.0
"""A turn of the loop takes no longer: an engine step, some commits, or a pause."""
LOAD_SECONDS = 1800.0
"""Loading another policy takes no longer."""


class Health:
    """Known by when the loop must have come around again. Before it began, nothing is due: engines start slowly."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due = float("inf")
        self._began = False

    def beat(self, within: float = LOOP_SECONDS) -> None:
        """The loop came around, and will again within so many seconds. The first call says that a policy is served."""
        self._due = self._clock() + within
        self._began = True

    def alive(self) -> bool:
        """Whether the loop is not overdue."""
        return self._clock() <= self._due

    def ready(self) -> bool:
        """Whether the engine holds a policy and the loop lives."""
        return self._began and self.alive()
