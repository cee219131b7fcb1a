"""Moments as the API writes them: RFC 3339, UTC, whole seconds."""

from __future__ import annotations

import math
from datetime import UTC, datetime


def stamp(seconds: float) -> str:
    """A moment in seconds since the epoch; the begun second counts as past."""
    return datetime.fromtimestamp(math.floor(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def stamp_after(seconds: float) -> str:
    """The first moment as the API writes them that is not before this one."""
    return stamp(math.ceil(seconds))


def moment(text: str | None) -> float | None:
    """Seconds since the epoch; None without a text, or for one that is no moment."""
    if text is None:
        return None
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def elapsed(since: str | None, now: float) -> float:
    """Seconds since a moment: 0 for none, and for one that lies ahead because a clock was set back."""
    start = moment(since)
    return 0.0 if start is None else max(0.0, now - start)


def soonest(*moments: float | None) -> float | None:
    """The earliest of the moments that there are."""
    return min((each for each in moments if each is not None), default=None)
