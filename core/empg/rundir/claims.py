"""Claims on units, `<kind>/<t>/claims/<unit>.<n>`, and a survey of who has what."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Collection, Sequence

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
    call regularly; a holder that seems dead is looked at once more here, after the claims were read, so that the claim
    of a sampler that started between the two looks is not taken from it.
    """
    if not plans:
        return {}
    kind, iteration = plans[0].kind, plans[0].iteration
    assert all((plan.kind, plan.iteration) == (kind, iteration) for plan in plans), "plans of one iteration"
    # Claims first: a holder that committed and left is then seen to have committed, not to have died.
    claimed, commits, rejects = (_attempts(store, kind, iteration, name) for name in ("claims", "units", "rejects"))
    units = {unit.name: plan.attempts for plan in plans for unit in plan.units}
    claims = {
        unit: _read(store, kind, iteration, unit, claimed[unit]) if commits[unit] <= rejects[unit] else {}
        for unit in units
    }
    looked: set[str] = set()

    def judge(unit: str, attempts: int) -> UnitStatus:
        key_of = {n: keys.claim_key(kind, iteration, unit, n) for n in claimed[unit]}

        def dead(attempt: int, claim: Claim) -> bool:
            holder = (claim.sampler, claim.incarnation, key_of[attempt])
            if liveness.dead(*holder) and claim.sampler not in looked:
                looked.add(claim.sampler)
                record = read_record(store, claim.sampler)
                liveness.observe([record] if record else [])
            return liveness.dead(*holder)

        status = unit_status(unit, attempts, claims[unit], commits[unit], rejects[unit], dead)
        if status.state in ("committed", "void"):
            liveness.forget(key_of.values())
        return status

    return {unit: judge(unit, attempts) for unit, attempts in units.items()}


def _read(store: Store, kind: keys.Kind, iteration: int, unit: str, attempts: Collection[int]) -> dict[int, Claim]:
    found = {}
    for attempt in attempts:
        # Retention may have removed a sealed iteration since the listing.
        with contextlib.suppress(KeyMissing):
            found[attempt] = records.read(store, keys.claim_key(kind, iteration, unit, attempt), Claim)
    return found


def _attempts(store: Store, kind: keys.Kind, iteration: int, directory: str) -> dict[str, set[int]]:
    """Attempts by unit that have a file in `claims`, `units` or `rejects`."""
    prefix = f"{keys.iteration_dir(kind, iteration)}/{directory}"
    found: dict[str, set[int]] = defaultdict(set)
    for name in store.children(prefix):
        if (parsed := keys.parse_attempt(name)) is None:
            raise records.CorruptRecord(f"{prefix}/{name}", "no file of a run directory; remove it")
        found[parsed[0]].add(parsed[1])
    return found
