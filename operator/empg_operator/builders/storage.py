"""Where the run directory is: the claim, and the claim of the run whose policy this one starts from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from empg.api.run import EMPGRun
from empg.api.status import Lineage
from empg_operator import names
from empg_operator.builders.metadata import metadata


@dataclass(frozen=True)
class Parent:
    """The run directory that `model.fromRun` names."""

    claim: str
    path: str
    """Below the root of the claim."""
    mount: str
    """Where the root of the claim is in the learner's container."""

    @property
    def directory(self) -> str:
        return f"{self.mount}/{self.path}"


def claim_name(run: EMPGRun) -> str:
    """Claim that holds the run directory."""
    return run.spec.storage.claim_name or names.claim(run.metadata.name)


def run_directory(run: EMPGRun) -> str:
    """The run directory in every container."""
    return f"{names.MOUNT}/{run.metadata.name}"


def parent(run: EMPGRun, lineage: Lineage | None) -> Parent | None:
    """What `model.fromRun` names; None for a run that starts from a model.

    `lineage` is what became of `model.fromRun.name`: claim and path of a run that may be gone by now.
    """
    source = run.spec.model.from_run
    if source is None:
        return None
    if source.run_dir is not None:
        claim, path = source.claim_name or claim_name(run), source.run_dir
    else:
        assert lineage is not None, "children of a fork are built once its parent is known"
        claim, path = lineage.claim_name, lineage.path
    return Parent(claim, path.strip("/"), names.MOUNT if claim == claim_name(run) else names.PARENT_MOUNT)


def claim(run: EMPGRun) -> dict[str, Any] | None:
    """The claim to make; None where the run names an existing one.

    Only with `whenDeleted: Delete` it refers to the run, so that by default it outlives it.
    """
    storage = run.spec.storage
    if storage.claim_name is not None:
        return None
    spec: dict[str, Any] = {
        "accessModes": [storage.access_mode],
        "resources": {"requests": {"storage": storage.size}},
    }
    if storage.storage_class_name is not None:
        spec["storageClassName"] = storage.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": metadata(run, names.claim(run.metadata.name), owned=storage.when_deleted == "Delete"),
        "spec": spec,
    }
