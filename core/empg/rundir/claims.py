"""Claims on units, `<kind>/<t>/claims/<unit>.<n>`, and a survey of who has what."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Sequence

from empg.rundir import keys, records
from empg.rundir.heartbeat import Liveness, read_record
from empg.rundir.plan import Plan
from empg.rundir.status import Claim, UnitStatus, unit_status
from empg.store.base import KeyExists, KeyMissing, Store

__all__ = ["Claim", "UnitStatus", "claim", "fail", "release", "survey"]


def claim(store: Store, plan: Plan, unit: str, attempt: int, sampler: str, incarnation: str, policy: int) -> bool:
    """Try to take an attempt of a unit; False if somebody else has it. Write a heartbeat before the first claim."""
    wanted = Claim(sampler=sampler, incarnation=incarnation, policy=policy)
    try:
        store.create(keys.claim_key(plan.kind, plan.iteration, unit, attempt), records.encode(wanted))
    except KeyExists:
        return False
    return True


def release(store: Store, plan: Plan, unit: str, attempt: int, claim: Claim) -> None:
    """Give a claim of our own back, unharmed: no failure is counted."""
    _end(store, plan, unit, attempt, claim.model_copy(update={"state": "released"}))


def fail(store: Store, plan: Plan, unit: str, attempt: int, claim: Claim, reason: str) -> None:
    """Give up a claim of our own: the attempt failed."""
    _end(store, plan, unit, attempt, claim.model_copy(update={"state": "failed", "reason": reason}))


def _end(store: Store, plan: Plan, unit: str, attempt: int, ended: Claim) -> None:
    store.put(keys.claim_key(plan.kind, plan.iteration, unit, attempt), records.encode(ended))


def survey(store: Store, plans: Sequence[Plan], liveness: Liveness) -> dict[str, UnitStatus]:
    """Status of every unit of the plans, which must be those of one iteration.

    Lists each directory once and reads the claims of units that have no commit. `liveness.observe` is the caller's to
    call regularly; a holder that seems dead is looked at once more here, after its claim was read, so that the claim of
    a sampler that started between the two looks is not taken from it.
    """
    if not plans:
        return {}
    kind, iteration = plans[0].kind, plans[0].iteration
    assert all((plan.kind, plan.iteration) == (kind, iteration) for plan in plans), "plans of one iteration"
    # Claims first: a holder that committed and left is then seen to have committed, not to have died.
    claims, commits, rejects = (_attempts(store, kind, iteration, name) for name in ("claims", "units", "rejects"))
    return {
        unit.name: _status(store, plan, unit.name, claims[unit.name], commits[unit.name], rejects[unit.name], liveness)
        for plan in plans
        for unit in plan.units
    }


def _status(
    store: Store, plan: Plan, unit: str, claimed: set[int], commits: set[int], rejects: set[int], liveness: Liveness
) -> UnitStatus:
    key_of = {n: keys.claim_key(plan.kind, plan.iteration, unit, n) for n in claimed}
    claims: dict[int, Claim] = {}
    if commits <= rejects:
        for n, key in key_of.items():
            # Retention may have removed a sealed iteration since the listing.
            with contextlib.suppress(KeyMissing):
                claims[n] = records.read(store, key, Claim)

    def dead(attempt: int, claim: Claim) -> bool:
        holder = (claim.sampler, claim.incarnation, key_of[attempt])
        if not liveness.dead(*holder):
            return False
        record = read_record(store, claim.sampler)
        liveness.observe([record] if record else [])
        return liveness.dead(*holder)

    status = unit_status(unit, plan.attempts, claims, commits, rejects, dead)
    if status.state in ("committed", "void"):
        liveness.forget(key_of.values())
    return status


def _attempts(store: Store, kind: keys.Kind, iteration: int, directory: str) -> dict[str, set[int]]:
    """Attempts by unit that have a file in `claims`, `units` or `rejects`."""
    prefix = f"{keys.iteration_dir(kind, iteration)}/{directory}"
    found: dict[str, set[int]] = defaultdict(set)
    for name in store.children(prefix):
        if (parsed := keys.parse_attempt(name)) is None:
            raise records.CorruptRecord(f"{prefix}/{name}", "no file of a run directory; remove it")
        found[parsed[0]].add(parsed[1])
    return found
