"""What is written while training goes on: one thing after the other, on a thread of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

SETTLE_SECONDS = 10.0
"""Longest that a process that is asked to stop waits for what it is writing; it is given some 15 s before SIGKILL."""

_writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")


def in_background(write: Callable[[], object]) -> Future[object]:
    """Run `write` after all that was given before. What it raises is raised by the result."""
    return _writer.submit(write)


def settle(seconds: float = SETTLE_SECONDS) -> None:
    """Return when all that was given is written or has failed, or after `seconds`."""
    try:
        _writer.submit(lambda: None).result(seconds)
    except TimeoutError:
        return  # What is half written is invisible.
