"""A work queue over keys: each key waits once, is worked on by one worker at a time, and comes back later if it failed.

Everything happens in one event loop.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from empg_operator.metrics import Metrics, Result

Key = TypeVar("Key", bound=Hashable)

FIRST_BACKOFF_SECONDS = 0.5
LONGEST_BACKOFF_SECONDS = 60.0
_log = logging.getLogger(__name__)


class TryLaterError(Exception):
    """Work on a key could not be finished and is to be tried again."""

    def __init__(self, result: Result, message: str, after: float | None = None, due: float | None = None) -> None:
        super().__init__(message)
        self.result = result
        """For the metrics."""
        self.after = after
        """Seconds for which the key is left alone, whatever happens to it. None: back off, but events come through."""
        self.due = due
        """Seconds after which something else is due, however long the backoff has become."""


class Queue(Generic[Key]):
    """Keys to work on.

    `work` takes a key and gives the seconds after which to work on it again without an event, or None.
    `draw` gives uniform numbers from 0 to 1, for the jitter.
    """

    def __init__(
        self,
        work: Callable[[Key], Awaitable[float | None]],
        workers: int,
        metrics: Metrics,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._work = work
        self._workers = workers
        self._metrics = metrics
        self._draw = draw
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[Key, float] = {}
        """Keys that wait for a worker, or are being worked on and changed meanwhile: when they were first added."""
        self._order: deque[Key] = deque()
        self._active: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._held: set[Key] = set()
        """Keys that events do not wake before their timer."""
        self._wake = asyncio.Semaphore(0)
        metrics.queue_depth.set_function(lambda: len(self._order))

    def add(self, key: Key) -> None:
        """Work on a key soon. One that waits already waits once."""
        if key in self._waiting or key in self._held:
            return
        self._waiting[key] = self._loop.time()
        if key not in self._active:
            self._enqueue(key)

    def add_after(self, key: Key, seconds: float) -> None:
        """Work on a key then at the latest; takes the place of an earlier such wish for it."""
        self._cancel_timer(key)
        self._timers[key] = self._loop.call_later(seconds, self._due, key)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._serve())

    def _due(self, key: Key) -> None:
        del self._timers[key]
        self._held.discard(key)
        self.add(key)

    def _enqueue(self, key: Key) -> None:
        self._order.append(key)
        self._wake.release()

    async def _serve(self) -> None:
        while True:
            await self._wake.acquire()
            key = self._order.popleft()
            self._metrics.queue_latency_seconds.observe(self._loop.time() - self._waiting.pop(key))
            self._active.add(key)
            try:
                await self._pass(key)
            finally:
                self._active.discard(key)
            if key in self._held:
                self._waiting.pop(key, None)
            elif key in self._waiting:
                self._enqueue(key)

    async def _pass(self, key: Key) -> None:
        """Work on a key once. A bug that one run's objects bring out must not keep other runs waiting, so any failure
        is an outcome here, is logged with its traceback and counted."""
        begun = time.perf_counter()
        [outcome] = await asyncio.gather(self._work(key), return_exceptions=True)
        self._metrics.reconcile_seconds.observe(time.perf_counter() - begun)
        self._cancel_timer(key)
        if isinstance(outcome, asyncio.CancelledError):
            raise outcome  # kopf cancels whatever still runs when the process is to end
        if not isinstance(outcome, BaseException):
            self._metrics.reconciles.labels("success").inc()
            self._failures.pop(key, None)
            if outcome is not None:
                self.add_after(key, outcome)
            return
        delay = self._backoff(key)
        if isinstance(outcome, TryLaterError):
            self._metrics.reconciles.labels(outcome.result).inc()
            if outcome.after is not None:
                self._held.add(key)
                delay = max(delay, outcome.after)
            elif outcome.due is not None:
                delay = min(delay, outcome.due)
            # Whoever writes under a version meets another writer now and then, which concerns nobody.
            level = logging.INFO if outcome.result == "conflict" else logging.WARNING
            _log.log(level, "%s: %s; again in %.1f s", key, outcome, delay)
        else:
            self._metrics.reconciles.labels("bug").inc()
            _log.error("%s: this is a bug in the operator; again in %.1f s", key, delay, exc_info=outcome)
        self.add_after(key, delay)

    def _backoff(self, key: Key) -> float:
        """Seconds until the next try: doubling, by half at random so that runs that failed together part."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        longest = min(LONGEST_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(failures - 1, 16))
        return longest * (0.5 + 0.5 * self._draw())

    def _cancel_timer(self, key: Key) -> None:
        timer = self._timers.pop(key, None)
        if timer:
            timer.cancel()
