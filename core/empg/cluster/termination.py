"""The last words of a container: a file that Kubernetes shows with the exit code."""

from __future__ import annotations

import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)

VARIABLE = "EMPG_TERMINATION_LOG"
"""Names the file where it is not Kubernetes' own."""
DEFAULT = Path("/dev/termination-log")
STOPPED = "asked to stop by SIGTERM"
LIMIT_BYTES = 4096
"""Kubernetes reads no more."""


def leave_word(reason: str) -> None:
    """Write why this process ends, as one line, in place of what was there. Outside a container nothing happens."""
    path = Path(os.environ.get(VARIABLE, DEFAULT))
    if not path.is_file():
        return
    line = "; ".join(part.strip() for part in reason.splitlines() if part.strip())
    try:
        path.write_bytes(line.encode()[:LIMIT_BYTES])
    except OSError as error:
        log.warning("%s: %s; the reason is in the log alone", path, error.strerror)
