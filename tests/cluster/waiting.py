"""Waiting for what a cluster does in its own time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")
_POLL_SECONDS = 0.05


def eventually(
    look: Callable[[], Found | None], what: str, seconds: float = 30.0, *, pause: float = _POLL_SECONDS
) -> Found:
    """The first value that `look` finds and that is not empty; `pause` in seconds lies between two looks.

    Raises:
        AssertionError: nothing was found in time; the message says what was waited for.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"no {what} within {seconds:.0f} s"
        time.sleep(pause)
