"""Whether the sampler's loop lives, and whether it serves a policy: what the kubelet asks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOOP_SECONDS = 60.0
"""A turn of the loop takes no longer, and so does an engine step."""
STALL_SECONDS = 600.0
"""But a server of the storage may be away for so long, and then a new engine would gain nothing."""
LOAD_SECONDS = 1800.0
"""Loading another policy takes no longer."""
START_SECONDS = 3600.0
"""Starting an engine takes no longer."""


class Health:
    """Known by when the loop must have come around again. Before it began, nothing is due but what `within` says."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._due = float("inf")
        self._stall = 0.0
        self._began = False

    def beat(self, within: float = LOOP_SECONDS, stall: float = STALL_SECONDS) -> None:
        """The loop came around, and will again within so many seconds, or `stall` seconds later if the storage stalls.

        The first call says that a policy is served.
        """
        self._due = self._clock() + within
        self._stall = stall
        self._began = True

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """What the block does before the loop begins ends within so many seconds; after it nothing is due."""
        self._due = self._clock() + seconds
        try:
            yield
        finally:
            self._due = float("inf")

    def alive(self) -> bool:
        """Whether the loop is not overdue, even if the storage stalls."""
        return self._clock() <= self._due + self._stall

    def ready(self) -> bool:
        """Whether the engine holds a policy and the loop is not overdue."""
        return self._began and self._clock() <= self._due
