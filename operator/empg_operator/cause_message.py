"""A cause and its one sentence for people."""

from __future__ import annotations

from dataclasses import dataclass

LIMIT = 500
"""Longest message of a condition, in characters."""
ENDING_LIMIT = 400
"""The same of one that tells how a container ended, around which is said of which attempt, and what follows."""


@dataclass(frozen=True)
class Cause:
    """What keeps the pods of a role from what they are to do, or ended them."""

    reason: str
    """One word in CamelCase; Kubernetes' own where it has one, so that users find it in its documentation."""
    message: str
    """What is the case and what to do about it; at most `LIMIT` characters."""


def explained(reason: str, what: str, quoted: str, remedy: str, *, tail: bool = False, limit: int = LIMIT) -> Cause:
    """A cause that reads `what: quoted; remedy.`, in `limit` characters at most.

    What is quoted gives way where it is too long: its end, or with `tail` its beginning.
    """
    quoted = " ".join(quoted.split()).rstrip(".")
    room = max(limit - len(what) - len(remedy) - len(": ; ."), 1)
    if len(quoted) > room:
        quoted = "…" + quoted[len(quoted) - room + 1 :] if tail else quoted[: room - 1] + "…"
    message = f"{what}: {quoted}; {remedy}." if quoted else f"{what}; {remedy}."
    return Cause(reason, message[:limit])
