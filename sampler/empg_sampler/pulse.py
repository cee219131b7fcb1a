"""The heartbeat of a sampler: a thread that writes its record."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import Self

from empg.rundir.heartbeat import SamplerRecord, write_record
from empg.store.base import Store, StoreError

log = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
RATE_SECONDS = 10.0
"""Tokens per second are counted over this long."""


class Pulse:
    """Writes `samplers/<id>.json` every second while it is entered, and whenever the policy changes.

    Only `advance` raises the progress that leases are judged by: a sampler whose loop hangs goes on beating, and its
    claims are taken over all the same.
    """

    def __init__(self, store: Store, sampler: str, incarnation: str) -> None:
        self.incarnation = incarnation
        self._store = store
        self._record = SamplerRecord(id=sampler, incarnation=incarnation, counter=0, progress=0, policy=None)
        self._progress = 0
        self._tokens = 0
        self._units = 0
        self._generated = deque([(time.monotonic(), 0)])
        self._lock = threading.Lock()
        self._failing = False
        """The last heartbeat could not be written, and that was told."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="pulse", daemon=True)

    def __enter__(self) -> Self:
        self._beat()
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopping.set()
        self._thread.join(timeout=BEAT_SECONDS)

    def advance(self, tokens: int = 0) -> None:
        """An engine step, a grade or a swap has finished; `tokens` were generated."""
        self._progress += 1
        self._tokens += tokens

    def committed(self) -> None:
        """A unit was committed."""
        self._units += 1

    def say(self, *, policy: int | None, loading: int | None = None, asleep: bool = False) -> None:
        """Publish which version is served, which is being loaded, and whether the engine sleeps."""
        with self._lock:
            self._record = self._record.model_copy(update={"policy": policy, "loading": loading, "asleep": asleep})
        self._beat()

    def _beat_on(self) -> None:
        while not self._stopping.wait(BEAT_SECONDS):
            self._beat()

    def _beat(self) -> None:
        with self._lock:
            now, tokens = time.monotonic(), self._tokens
            self._generated.append((now, tokens))
            while len(self._generated) > 2 and now - self._generated[0][0] > RATE_SECONDS:
                self._generated.popleft()
            (then, before) = self._generated[0]
            self._record = self._record.model_copy(
                update={
                    "counter": self._record.counter + 1,
                    "progress": self._progress,
                    "units": self._units,
                    "tokens_per_second": (tokens - before) / (now - then) if now > then else 0.0,
                }
            )
            try:
                write_record(self._store, self._record)
            except StoreError as error:
                # Others take our claims over if this lasts; what we commit counts all the same.
                if not self._failing:
                    log.error("heartbeat not written: %s", error)
                self._failing = True
                return
            if self._failing:
                log.info("heartbeats are written again")
            self._failing = False
