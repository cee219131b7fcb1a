"""`model.fromRun.name`: where the policy is that a run starts from."""

from __future__ import annotations

from dataclasses import dataclass

from empg.api.status import Lineage, RunStatus
from empg_operator.plan.reading import read_status
from empg_operator.plan.situation import Situation


@dataclass(frozen=True)
class Missing:
    """Why the parent can't be started from yet."""

    reason: str
    message: str


def lineage(situation: Situation) -> Lineage | Missing | None:
    """Where the parent's run directory is, once and for all: the parent may be deleted later. None: a run without a
    parent."""
    origin = situation.spec.model.from_run
    if origin is None or origin.name is None:
        return None
    if situation.status.lineage is not None:
        return situation.status.lineage
    parent = situation.observed.parent
    if parent is None:
        return Missing(
            "ParentMissing",
            f"model.fromRun.name: there is no EMPGRun {origin.name!r} in this namespace. Create it, or name the "
            "directory of its policies by model.fromRun.runDir and claimName.",
        )
    status = read_status(parent.get("status") or {})
    if status.storage is None:
        return Missing(
            "ParentMissing", f"model.fromRun.name: it is not known yet where EMPGRun {origin.name!r} has its policies."
        )
    if not _has(status, origin.policy):
        wanted = "a policy" if origin.policy is None else f"policy {origin.policy}"
        return Missing("ParentMissing", f"model.fromRun: EMPGRun {origin.name!r} has not published {wanted} yet.")
    return Lineage(
        run=origin.name,
        uid=parent["metadata"].get("uid", ""),
        claim_name=status.storage.claim_name,
        path=status.storage.path,
        policy=origin.policy,
    )


def _has(parent: RunStatus, policy: int | None) -> bool:
    """Whether a run has published a policy, as far as it says: what it does not report its children must find out."""
    if parent.progress is None:
        return any(condition.type == "Complete" and condition.status == "True" for condition in parent.conditions)
    newest = parent.progress.policy_version
    return newest is not None and newest >= (policy or 0)
