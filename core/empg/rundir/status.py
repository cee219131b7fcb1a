"""What has become of a unit: pure logic over its claims, commits and rejects."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from empg.rundir.plan import Record


class Claim(Record):
    """Content of `claims/<unit>.<n>`: who works, or worked, on the attempt."""

    sampler: str
    incarnation: str
    policy: int = Field(ge=0)
    """Newest version the holder had when it claimed."""
    state: Literal["held", "released", "failed"] = "held"
    reason: str = ""


@dataclass(frozen=True)
class UnitStatus:
    """Where a unit stands."""

    unit: str
    state: Literal["open", "held", "committed", "void"]
    attempt: int
    """open: the one to claim next. held: the newest. committed: the one that counts. void: the last."""
    failures: int
    """Attempts that were rejected, failed, or whose holder died; of a committed unit the rejected ones alone."""
    holder: str | None = None
    """held: id of the sampler that has the newest claim."""
    policy: int | None = None
    """held: the policy version of that claim."""
    incarnation: str | None = None
    """held: the process of that claim."""


def unit_status(
    unit: str,
    attempts: int,
    claims: Mapping[int, Claim],
    commits: Collection[int],
    rejects: Collection[int],
    dead: Callable[[int, Claim], bool],
) -> UnitStatus:
    """Judge a unit; `attempts` is the number of failures that make it void, `dead` judges the holder of attempt n.

    The lowest commit that was not rejected counts, whoever holds newer claims: a slow holder's late commit is valid.
    Without one, the newest claim decides: a live holder keeps the unit; a released, failed, rejected or dead one opens
    it. A released attempt is no failure.
    """
    standing = set(commits) - set(rejects)
    if standing:
        return UnitStatus(unit, "committed", min(standing), len(set(rejects)))
    failed = set(rejects) | {n for n, claim in claims.items() if claim.state == "failed"}
    failed |= {n for n, claim in claims.items() if n not in failed and claim.state == "held" and dead(n, claim)}
    newest = max((*claims, *commits, *rejects), default=-1)
    last = claims.get(newest)
    if last is not None and last.state == "held" and newest not in failed:
        return UnitStatus(unit, "held", newest, len(failed), last.sampler, last.policy, last.incarnation)
    if len(failed) >= attempts:
        return UnitStatus(unit, "void", newest, len(failed))
    return UnitStatus(unit, "open", newest + 1, len(failed))
