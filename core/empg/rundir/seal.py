"""Seals, `<kind>/<t>/seal.json`: which commits an iteration consists of, decided once."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from empg.rundir import keys, records
from empg.rundir.plan import Plan, Record
from empg.rundir.units import CorruptUnit, read_unit
from empg.store.base import KeyExists, KeyMissing, Store
from empg.trajectory import Trajectory


class SealedUnit(Record):
    """One commit that counts."""

    unit: str
    attempt: int = Field(ge=0)
    digest: str
    """SHA-256 of the file."""
    rows: int = Field(ge=0)


class Seal(Record):
    """The data of an iteration. Commits that are not in it are ignored for good."""

    run: str
    kind: keys.Kind
    iteration: int = Field(ge=0)
    units: tuple[SealedUnit, ...]
    void: tuple[str, ...] = ()
    """Units that count as failed, or as missing in an evaluation that met its deadline."""
    missing: bool = False
    """The evaluation met its deadline."""


def create_seal(store: Store, seal: Seal) -> Seal:
    """Close an iteration. A seal that is there already wins and is returned."""
    key = keys.seal_key(seal.kind, seal.iteration)
    try:
        store.create(key, records.encode(seal))
        return seal
    except KeyExists:
        found = read_seal(store, seal.kind, seal.iteration)
    if found is None or found.run != seal.run:
        raise records.CorruptRecord(key, f"is not a seal of run {seal.run}; remove it")
    return found


def read_seal(store: Store, kind: keys.Kind, iteration: int) -> Seal | None:
    """The seal of an iteration, None while it is open."""
    key = keys.seal_key(kind, iteration)
    try:
        seal = records.read(store, key, Seal)
    except KeyMissing:
        return None
    if (seal.kind, seal.iteration) != (kind, iteration):
        raise records.CorruptRecord(key, f"seals {seal.kind} {seal.iteration}; remove it")
    return seal


def read_sealed(store: Store, plans: Sequence[Plan], seal: Seal) -> list[Trajectory]:
    """Every sealed row in plan order. CorruptUnit if a file is not the one that was sealed."""
    sealed = {unit.unit: unit for unit in seal.units}
    rows: list[Trajectory] = []
    for plan in plans:
        if (plan.run, plan.kind, plan.iteration) != (seal.run, seal.kind, seal.iteration):
            raise records.CorruptRecord(
                keys.seal_key(seal.kind, seal.iteration), f"is of run {seal.run}, not {plan.run}; remove it"
            )
        for unit in plan.units:
            if (entry := sealed.pop(unit.name, None)) is None:
                continue
            found, digest = read_unit(store, plan, unit.name, entry.attempt)
            if digest != entry.digest:
                key = keys.unit_key(plan.kind, plan.iteration, unit.name, entry.attempt)
                raise CorruptUnit(key, f"changed since it was sealed: SHA-256 {digest}, sealed {entry.digest}")
            rows += found
    if sealed:
        raise records.CorruptRecord(
            keys.seal_key(seal.kind, seal.iteration), f"seals units that no plan has: {sorted(sealed)}"
        )
    return rows
