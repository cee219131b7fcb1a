"""Children that a run has all the time: repaired while it goes on, removed some time after its end."""

from __future__ import annotations

from empg.api.status import Lineage, Storage
from empg_operator.builders.children import standing_children
from empg_operator.builders.storage import claim_name
from empg_operator.decision import Manifest, Reference
from empg_operator.drift import applicable, drifted
from empg_operator.plan.situation import Situation
from empg_operator.settings import Settings

_CLAIM = "PersistentVolumeClaim"


def repairs(situation: Situation, settings: Settings, lineage: Lineage | None) -> tuple[Manifest, ...]:
    """What to apply so that all standing children are as they are to be."""
    children, observed = situation.observed.children, situation.observed
    wanted = standing_children(situation.run, settings, lineage, observed.pod_monitors)
    return tuple(repaired for each in wanted if (repaired := repair(each, children.get(_place(each)))) is not None)


def repair(wanted: Manifest, observed: Manifest | None) -> Manifest | None:
    """What to apply so that an object is as it is wanted; None if it is."""
    return applicable(wanted, observed) if drifted(wanted, observed) else None


def removals(situation: Situation) -> tuple[Reference, ...]:
    """All children but the claim: what was trained stays."""
    return tuple(
        Reference(kind, name, manifest["metadata"].get("uid"))
        for (kind, name), manifest in situation.observed.children.items()
        if kind != _CLAIM and "deletionTimestamp" not in manifest["metadata"]
    )


def storage(situation: Situation) -> Storage:
    return Storage(claim_name=claim_name(situation.run), path=situation.name)


def _place(manifest: Manifest) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]
