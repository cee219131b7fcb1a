"""Grading in several processes under limits of time and memory."""

from __future__ import annotations

import queue
import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from empg.api.task import GraderSpec
from empg.grading.make import make_grader
from empg.grading.process import GradingProcess, WorkerLost
from empg.verdict import Grade

STARTS = 3
"""Times in a row that a worker may fail to start before the pool gives up."""
CLOSE_SECONDS = 30.0
"""Longest wait for a thread whose worker was killed."""

Item = tuple[Hashable, str, str]
"""Key, text and gold answer."""


class GradePool:
    """`spec.workers` processes that grade answers in any order; a worker that is lost is replaced.

    A thread of this program goes with each process, sends it one answer after the other and takes its time. So the
    clock of an answer starts when its grading starts, and an overrun is cut short whether or not `poll` is called. Only
    one thread may use a pool.
    """

    def __init__(self, spec: GraderSpec, task: str) -> None:
        """Start the workers, without waiting for them. `ValueError` when the task has no grader."""
        make_grader(spec, task)
        self._spec = spec
        self._task = task
        self._todo: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[Hashable, Grade] | Exception] = queue.SimpleQueue()
        self._pending = 0
        self._failure: Exception | None = None
        self._lock = threading.Lock()
        self._closed = False  # under _lock, as is the next
        self._processes: set[GradingProcess] = set()
        self._threads = [
            threading.Thread(target=self._drive, name=f"grading-{index}", daemon=True) for index in range(spec.workers)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pending(self) -> int:
        """Answers submitted whose grades `poll` has not returned yet."""
        return self._pending

    @property
    def failure(self) -> Exception | None:
        """Why the workers can't grade, as far as is known; `poll` raises it once answers are pending."""
        if self._failure is None and self._pending == 0 and not self._done.empty():
            finished = self._done.get()
            assert isinstance(finished, Exception), "grades are of pending answers"
            self._failure = finished
        return self._failure

    def submit(self, key: Hashable, text: str, gold: str) -> None:
        """Queue an answer; `poll` returns its grade under `key`."""
        assert not self._closed, "submit to a closed pool"
        self._pending += 1
        self._todo.put((key, text, gold))

    def poll(self, timeout: float = 0) -> list[tuple[Hashable, Grade]]:
        """All finished grades. While answers are pending, waits up to `timeout` seconds for the first one.

        `ValueError` when the grader's settings are wrong, `WorkerLost` when workers don't start.
        """
        grades: list[tuple[Hashable, Grade]] = []
        try:
            while self._failure is None and self._pending > 0:
                finished = self._done.get(timeout=0 if grades else max(timeout, 0))
                if isinstance(finished, Exception):
                    self._failure = finished
                else:
                    grades.append(finished)
                    self._pending -= 1
        except queue.Empty:
            pass
        if self._failure is not None:
            raise self._failure
        return grades

    def close(self) -> None:
        """Kill the workers; what is pending is given up."""
        with self._lock:
            self._closed = True
            for process in self._processes:
                process.kill()
        for _ in self._threads:
            self._todo.put(None)
        for thread in self._threads:
            thread.join(CLOSE_SECONDS)

    def _drive(self) -> None:
        try:
            self._run_workers()
        except (ValueError, WorkerLost, OSError) as error:
            self._done.put(error)

    def _run_workers(self) -> None:
        """One worker after the other, until the pool is closed."""
        failed_starts = 0
        while not self._closed:
            with GradingProcess(self._spec, self._task) as process, self._registered(process):
                try:
                    process.wait_ready()
                except WorkerLost:
                    failed_starts += 1
                    if failed_starts == STARTS:
                        raise
                    continue
                failed_starts = 0
                self._feed(process)

    @contextmanager
    def _registered(self, process: GradingProcess) -> Iterator[None]:
        """Let `close` find the process, or kill it at once when `close` has come first."""
        with self._lock:
            self._processes.add(process)
            if self._closed:
                process.kill()
        try:
            yield
        finally:
            with self._lock:
                self._processes.remove(process)

    def _feed(self, process: GradingProcess) -> None:
        while process.alive:
            item = self._todo.get()
            if item is None:
                return
            key, text, gold = item
            self._done.put((key, process.grade(text, gold)))
