"""Log lines of the operator: one JSON object each, or text for people."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

_TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure(style: str, level: str) -> None:
    """Write to standard error what is at least of this level; of kopf only warnings and what is graver."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if style == "json" else logging.Formatter(_TEXT))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # kopf's handlers only fill the cache; what it has to tell about each event is nothing new.
    logging.getLogger("kopf").setLevel(max(logging.WARNING, logging.getLevelName(level)))
