"""Reports a changing value to the API server from a thread of its own: the newest value, rarely, blocking nobody."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from empg.cluster.api_server import ApiError, Fields, RunGone

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pace:
    """Seconds between two writes."""

    news: float = 10.0
    """Before a change of what matters, as the phase."""
    detail: float = 60.0
    """Before a change of the rest, after news; each further one waits `growth` times as long."""
    growth: float = 5.0
    retry: float = 10.0
    """After a write that failed; doubles with every further one."""
    longest_retry: float = 60.0
    last_retry: float = 0.5
    """After a last write that failed, as long as there is time."""

    def wait(self, news: bool, details: int, failures: int) -> float:
        """Time from the last write to the next one; `details` were written since there was news."""
        if failures:
            return min(self.retry * 2.0 ** min(failures - 1, 30), self.longest_retry)
        return self.news if news else self.detail * self.growth**details


@dataclass(frozen=True)
class _Report:
    fields: Fields
    news: object


class StatusReporter:
    """Writes the newest of the values offered to it. While the API server is away they are replaced, never queued."""

    def __init__(self, write: Callable[[Fields], None], pace: Pace | None = None) -> None:
        """`write` raises ApiError, and RunGone when nothing is left to report to."""
        self._write = write
        self._pace = pace or Pace()
        self._changed = threading.Condition()
        self._offered: _Report | None = None
        self._written: _Report | None = None
        self._tried_at = float("-inf")
        self._details = 0
        """Writes since the last one with news."""
        self._failures = 0
        """Writes that failed since the last one that succeeded."""
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="status", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close(5.0)

    def offer(self, fields: Fields, news: object) -> None:
        """Have these fields written: soon if `news` is another than what was written last, else at leisure."""
        with self._changed:
            self._offered = _Report(fields, news)
            self._changed.notify()

    def close(self, seconds: float) -> None:
        """Write the last value now if it was not written yet, and end; gives up after `seconds`."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(seconds)

    def _run(self) -> None:
        while (report := self._next()) is not None:
            self._tried_at = time.monotonic()
            try:
                self._write(report.fields)
            except RunGone as gone:
                log.info("no more reports: %s", gone)
                return
            except ApiError as error:
                self._failures += 1
                if self._failures == 1:
                    log.warning("%s; the work goes on, and the status follows when it can", error)
                continue
            if self._failures:
                log.info("the API server takes the status again")
            news = self._written is None or self._written.news != report.news
            self._details = 0 if news else self._details + 1
            self._failures = 0
            self._written = report

    def _next(self) -> _Report | None:
        """What to write, as soon as it is time to; None at the end."""
        with self._changed:
            while True:
                offered, written = self._offered, self._written
                if offered is None or (written is not None and written.fields == offered.fields):
                    if self._closing:
                        return None
                    self._changed.wait()
                    continue
                wait = self._pace.wait(written is None or written.news != offered.news, self._details, self._failures)
                if self._closing:
                    wait = self._pace.last_retry if self._failures else 0.0
                left = self._tried_at + wait - time.monotonic()
                if left <= 0:
                    return offered
                self._changed.wait(left)
