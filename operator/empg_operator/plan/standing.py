"""Children that a run has all the time: repaired while it goes on, removed when they are not wanted any more and some
time after its end."""

from __future__ import annotations

from collections.abc import Iterable

from empg.api.status import Lineage, Storage
from empg_operator.builders.access import ROLES
from empg_operator.builders.children import standing_children
from empg_operator.builders.storage import claim_name
from empg_operator.decision import Manifest, Reference
from empg_operator.drift import applicable, drifted
from empg_operator.ownership import owner
from empg_operator.plan.situation import Situation
from empg_operator.plan.templates import accounts_in_use
from empg_operator.settings import Settings

_CLAIM = "PersistentVolumeClaim"
_OPTIONAL = frozenset({"NetworkPolicy", "PodMonitor"})
"""Kinds that settings or an edit of the run may do without."""


def desired(situation: Situation, settings: Settings, lineage: Lineage | None) -> tuple[Manifest, ...]:
    """All standing children as they are to be."""
    accounts = {role: accounts_in_use(situation.observed, role) for role in ROLES}
    return standing_children(situation.run, settings, lineage, situation.observed.pod_monitors, accounts)


def repairs(situation: Situation, wanted: Iterable[Manifest]) -> tuple[Manifest, ...]:
    """What to apply so that all standing children are as they are to be."""
    children = situation.observed.children
    return tuple(repaired for each in wanted if (repaired := repair(each, children.get(_place(each)))) is not None)


def claim_repairs(situation: Situation, wanted: Iterable[Manifest]) -> tuple[Manifest, ...]:
    """The same of a claim that is there: it outlives the other children, and follows `storage.whenDeleted`."""
    there = (each for each in wanted if each["kind"] == _CLAIM and _place(each) in situation.observed.children)
    return repairs(situation, there)


def unwanted(situation: Situation, wanted: Iterable[Manifest]) -> tuple[Reference, ...]:
    """Optional children that an operator with other settings made, or that the run had before an edit."""
    places = {_place(each) for each in wanted}
    return tuple(
        Reference(kind, name, manifest["metadata"].get("uid"))
        for (kind, name), manifest in situation.observed.children.items()
        if kind in _OPTIONAL
        and (kind, name) not in places
        and owner(manifest) == situation.uid
        and "deletionTimestamp" not in manifest["metadata"]
    )


def repair(wanted: Manifest, observed: Manifest | None) -> Manifest | None:
    """What to apply so that an object is as it is wanted; None if it is."""
    return applicable(wanted, observed) if drifted(wanted, observed) else None


def removals(situation: Situation) -> tuple[Reference, ...]:
    """All children but the claim: what was trained stays. So does what a user labelled for this run."""
    return tuple(
        Reference(kind, name, manifest["metadata"].get("uid"))
        for (kind, name), manifest in situation.observed.children.items()
        if kind != _CLAIM and owner(manifest) == situation.uid and "deletionTimestamp" not in manifest["metadata"]
    )


def storage(situation: Situation) -> Storage:
    return Storage(claim_name=claim_name(situation.run), path=situation.name)


def _place(manifest: Manifest) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]
