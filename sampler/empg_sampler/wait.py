"""Waiting for others. It goes on without end: a learner may be queued for hours."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

log = logging.getLogger("empg_sampler")
Found = TypeVar("Found")

LOOK_SECONDS = 0.05
"""How often to look."""
REMIND_SECONDS = 60.0
"""How often to say what is waited for."""


def wait_for(what: str, look: Callable[[], Found | None]) -> Found:
    """What `look` finds, as soon as it is something."""
    remind_at = time.monotonic() + REMIND_SECONDS
    while not (found := look()):
        if time.monotonic() >= remind_at:
            log.info("waiting for %s", what)
            remind_at += REMIND_SECONDS
        time.sleep(LOOK_SECONDS)
    return found
