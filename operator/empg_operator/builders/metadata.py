"""Metadata that every child of a run carries: name, namespace, labels and the reference to the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from empg.api.run import API_VERSION, KIND, EMPGRun
from empg_operator import names


def metadata(
    run: EMPGRun,
    name: str,
    role: names.Role | None = None,
    *,
    owned: bool = True,
    labels: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Metadata of a child; `labels` come on top of the common ones. A child that is not owned outlives the run."""
    built: dict[str, Any] = {
        "name": name,
        "namespace": run.metadata.namespace,
        "labels": names.labels(run.metadata.name, role) | dict(labels or {}),
    }
    if owned:
        built["ownerReferences"] = [owner_reference(run)]
    return built


def owner_reference(run: EMPGRun) -> dict[str, Any]:
    """Reference by which the garbage collector removes a child after the run.

    It does not block the run's deletion: where the admission plugin OwnerReferencesPermissionEnforcement is on, that
    would need a permission on the run's finalizers, and a stuck child would keep the run.
    """
    assert run.metadata.uid is not None, "the API server gives every object a UID"
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": run.metadata.name,
        "uid": run.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def queue_labels(run: EMPGRun) -> dict[str, str]:
    """Label that hands a Job or Deployment to Kueue, for runs that ask for a queue."""
    return {names.QUEUE_LABEL: run.spec.queue_name} if run.spec.queue_name else {}
