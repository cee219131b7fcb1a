"""`spec.storage` and `spec.retention`: where the run directory is and what stays in it."""

from __future__ import annotations

from typing import Literal

from empg.api.base import SUBDOMAIN, Spec, field


class StorageSpec(Spec):
    """The volume of the run directory. `empg run` uses a local directory and reads `adopt` only."""

    claim_name: str | None = field(None, change="immutable", max_length=253, pattern=SUBDOMAIN)
    """An existing PersistentVolumeClaim to use. Absent: one is made."""
    size: str = field("100Gi", change="live", max_length=12, pattern=r"^[1-9][0-9]*(Mi|Gi|Ti)$")
    """Size of the claim that is made; may grow."""
    storage_class_name: str | None = field(None, change="immutable", max_length=253, pattern=SUBDOMAIN)
    """Storage class of the claim that is made. Absent: the cluster's default."""
    access_mode: Literal["ReadWriteMany", "ReadWriteOnce"] = field("ReadWriteMany", change="immutable")
    """Access mode of the claim that is made. `ReadWriteOnce` keeps all pods of the run on one node."""
    when_deleted: Literal["Retain", "Delete"] = field("Retain", change="live")
    """What becomes of the claim when the run is deleted."""
    adopt: bool = field(False, change="immutable")
    """Continue a run directory that belongs to another run."""


class RetentionSpec(Spec):
    """What stays in the run directory."""

    policies: int = field(3, change="live", ge=2, le=100_000)
    """Newest policies to keep."""
    best: bool = field(True, change="live")
    """Keep the policy with the best greedy evaluation too."""
    every: int = field(0, change="live", ge=0, le=1_000_000)
    """Keep every nth policy too. 0: none."""
    states: int = field(2, change="live", ge=1, le=1000)
    """Newest training states to keep."""
    state_every: int = field(1, change="live", ge=1, le=1_000_000)
    """Iterations between training states; a restarted learner repeats the M-steps since the newest one."""
    rollouts: int = field(0, change="live", ge=0, le=1_000_000)
    """Iterations of trajectories to keep beyond what a restart needs. 0: all."""
