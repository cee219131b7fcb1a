"""Where the learner logs to."""

from __future__ import annotations

import logging
import sys


def log_to_stderr(level: str) -> None:
    """Say on stderr what the learner and the core say from this level on."""
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
