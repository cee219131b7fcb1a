"""Whether the process does its work, for the kubelet's probes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from empg_operator.watches import Watches

SILENCE_SECONDS = 600.0
"""Longest time without a request of a watch: even a healthy one ends and begins anew twice within it."""
BEAT_SECONDS = 5.0
_STUCK_SECONDS = 60.0
_log = logging.getLogger(__name__)


class Health:
    """Asked from the thread of the probes, told by the event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.is_filled = False
        """Whether the cache is."""
        self.stands_by = False
        """Whether another process leads; this one is then as ready as it can be."""
        self.watches: Watches | None = None
        """Set when they are begun."""
        self._beat = self._clock()

    async def beat(self) -> None:
        """Show that the event loop runs, for ever."""
        while True:
            self._beat = self._clock()
            await asyncio.sleep(BEAT_SECONDS)

    def alive(self) -> bool:
        """False if a restart of the process would help: the event loop is stuck, or a watch hangs.

        An API server that is away does not count, as no restart brings it back.
        """
        stuck = self._clock() - self._beat
        if stuck > _STUCK_SECONDS:
            _log.error("the event loop has been stuck for %.0f s", stuck)
            return False
        silence = self.watches.silence() if self.watches else 0.0
        if silence > SILENCE_SECONDS:
            _log.error("a watch has been idle for %.0f s", silence)
            return False
        return True

    def ready(self) -> bool:
        """Whether runs are looked after, or another process does it."""
        return self.stands_by or (self.is_filled and self.watches is not None and self.watches.have_begun)
