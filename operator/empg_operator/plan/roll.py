"""How samplers come by a new policy, and what becomes of those that do not."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

from empg.api.status import Progress
from empg_operator import names
from empg_operator.decision import Manifest, Reference
from empg_operator.plan.situation import Situation
from empg_operator.plan.times import moment, stamp

PAUSE_SECONDS = 30.0
"""Between the deletions of two laggards: the first one's successor may bring back what the second one waits for."""
LOOK_SECONDS = 5.0
"""A look so old may still show a pod that was deleted."""


@dataclass(frozen=True)
class Roll:
    """Where the samplers are on their way to a policy."""

    policy: int | None
    """Policy that all samplers are asked to hold, or a newer one."""
    started: str | None
    """None: they do."""
    laggard_deleted: str | None
    delete: Reference | None = None
    look: bool = False
    """A fresh look at the pods is needed to delete one."""
    again: float | None = None
    """When to look after laggards again."""
    unclear: bool = False
    """The report is from the beginning of an M-step and does not show who came by the policy since."""


def roll(situation: Situation, desired: int) -> Roll:
    """Follow the newest policy; `desired` is the number of samplers that are wanted."""
    status = situation.status
    present = Roll(status.rolled_policy, status.roll_started, status.laggard_deleted)
    if situation.alternate:
        return Roll(None, None, None)
    if desired == 0:
        return Roll(present.policy, None, None)
    progress = situation.progress
    newest = None if progress is None else progress.policy_version
    if situation.spec.sampler.roll_strategy == "RollingUpdate":
        return _replaced(situation, present, newest)
    if progress is None or newest is None or not _reports(situation):
        return Roll(present.policy, None, None)
    return _laggards(situation, _pulled(situation, present, progress, newest), progress)


def _reports(situation: Situation) -> bool:
    """`InPlace`: a learner runs that says which policy each sampler holds. Without one nobody knows who is behind, so
    nobody is, until the next learner tells."""
    job = situation.live
    return job is not None and job.all_ready and not job.ending


def _replaced(situation: Situation, before: Roll, newest: int | None) -> Roll:
    """`RollingUpdate`: the Deployment is asked for pods with the newest policy, and says when it has them, whether or
    not a learner runs."""
    if newest is not None and (before.policy is None or newest > before.policy):
        return Roll(newest, stamp(situation.now), None)
    return Roll(before.policy, None if situation.samplers.rolled else before.started, None)


def _pulled(situation: Situation, before: Roll, progress: Progress, newest: int) -> Roll:
    """`InPlace`: samplers load it by themselves. The next policy is asked for when all hold this one, so that a sampler
    that stands still stays behind however fast policies follow each other."""
    now = stamp(situation.now)
    if before.policy is not None and _behind(progress, before.policy):
        return Roll(before.policy, before.started or now, before.laggard_deleted)
    if before.policy is None or newest > before.policy:
        return Roll(newest, now if _behind(progress, newest) else None, None)
    return Roll(before.policy, None, None)


def _laggards(situation: Situation, roll: Roll, progress: Progress) -> Roll:
    """Delete one pod at a time that has not come by the policy in time."""
    started, limit = moment(roll.started), situation.spec.sampler.roll_deadline_seconds
    if started is None or roll.policy is None:
        return roll
    if situation.learns:
        return dataclasses.replace(roll, unclear=True)
    last = moment(roll.laggard_deleted)
    due = max(started + limit, last + PAUSE_SECONDS if last is not None else 0.0)
    if situation.now < due:
        return Roll(roll.policy, roll.started, roll.laggard_deleted, again=due)
    look = situation.look(LOOK_SECONDS)
    if look is None:
        return Roll(roll.policy, roll.started, roll.laggard_deleted, look=True)
    named = progress.laggards[: _behind(progress, roll.policy)]
    pod = next(_deletable(look.pods, named, situation.now - limit), None)
    again = situation.now + PAUSE_SECONDS
    if pod is None:
        return Roll(roll.policy, roll.started, roll.laggard_deleted, again=again)
    reference = Reference("Pod", pod["metadata"]["name"], pod["metadata"].get("uid"))
    return Roll(roll.policy, roll.started, stamp(situation.now), delete=reference, again=again)


def _behind(progress: Progress, policy: int) -> int:
    """Samplers that hold an older policy."""
    return sum(count.samplers for count in progress.sampler_versions if count.policy < policy)


def _deletable(pods: tuple[Manifest, ...], named: tuple[str, ...], made_before: float) -> Iterator[Manifest]:
    """The named pods that are this run's samplers and old enough; a report may name any, and pods that are gone."""
    found = {pod["metadata"]["name"]: pod for pod in pods}
    for name in named:
        about = found.get(name, {}).get("metadata", {})
        sampler = about.get("labels", {}).get(names.ROLE_LABEL) == "sampler"
        made = moment(about.get("creationTimestamp"))
        if sampler and "deletionTimestamp" not in about and made is not None and made <= made_before:
            yield found[name]
