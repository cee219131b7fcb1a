"""Claims on units, `<kind>/<t>/claims/<unit>.<n>`, and a survey of who has what."""

from __future__ import annotations

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

    Lists the iteration once and reads the claims of units that have no commit. `liveness.observe` is the caller's to
    call regularly; a holder that seems dead is looked at once more here, after its claim was read, so that the claim of
    a sampler that started between the two looks is not taken from it.
    """
    if not plans:
        return {}
    kind, iteration = plans[0].kind, plans[0].iteration
    assert all((plan.kind, plan.iteration) == (kind, iteration) for plan in plans), "plans of one iteration"
    listed = _list(store, kind, iteration)

    def dead(sampler: str, incarnation: str) -> bool:
        if not liveness.dead(sampler, incarnation):
            return False
        record = read_record(store, sampler)
        liveness.observe([record] if record else [])
        return liveness.dead(sampler, incarnation)

    found = {}
    for plan in plans:
        for unit in plan.units:
            commits, rejects = listed["units"][unit.name], listed["rejects"][unit.name]
            held = listed["claims"][unit.name] if commits <= rejects else set()
            claims = {n: held_claim for n in held if (held_claim := _read(store, plan, unit.name, n)) is not None}
            found[unit.name] = unit_status(unit.name, plan.attempts, claims, commits, rejects, dead)
    return found


def _list(store: Store, kind: keys.Kind, iteration: int) -> dict[str, dict[str, set[int]]]:
    """Attempts by directory (`claims`, `units`, `rejects`) and unit."""
    listed: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    # Not in one recursive listing: a commit must not be missed whose claim, made before it, is seen.
    for directory in ("claims", "units", "rejects"):
        for name in store.children(f"{keys.iteration_dir(kind, iteration)}/{directory}"):
            parsed = keys.parse_attempt(name)
            if parsed is None:
                raise records.CorruptRecord(
                    f"{keys.iteration_dir(kind, iteration)}/{directory}/{name}", "no file of a run directory; remove it"
                )
            listed[directory][parsed[0]].add(parsed[1])
    return listed


def _read(store: Store, plan: Plan, unit: str, attempt: int) -> Claim | None:
    try:
        return records.read(store, keys.claim_key(plan.kind, plan.iteration, unit, attempt), Claim)
    except KeyMissing:
        return None  # Retention removed a sealed iteration between the listing and this look.
