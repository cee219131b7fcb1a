"""Whether an object still is as it was applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from empg_operator.decision import Manifest
from empg_operator.ownership import owner
from empg_operator.quantity import quantity

KEYED = {
    "containers": ("name",),
    "initContainers": ("name",),
    "volumes": ("name",),
    "imagePullSecrets": ("name",),
    "hostAliases": ("ip",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "schedulingGates": ("name",),
    "resourceClaims": ("name",),
    "env": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "ownerReferences": ("uid",),
}
"""Lists that server-side apply merges by these keys: it leaves items that others added, so they are no drift."""

WHOLE = frozenset({"matchLabels", "nodeSelector", "selector"})
"""Objects that server-side apply replaces as a whole: keys that others added are drift."""

QUANTITIES = frozenset({"limits", "requests", "sizeLimit", "divisor"})
"""Quantities, or objects of them; the API server spells them its own way."""

ZERO_COUNTS = frozenset(
    {
        *("emptyDir", "replicas", "completions", "parallelism", "backoffLimit", "maxSurge", "maxUnavailable"),
        *("automountServiceAccountToken", "enableServiceLinks", "setHostnameAsFQDN", "shareProcessNamespace"),
        *("allowPrivilegeEscalation", "privileged", "readOnlyRootFilesystem", "runAsNonRoot", "hostUsers"),
        *("runAsUser", "runAsGroup", "fsGroup", "terminationGracePeriodSeconds", "tolerationSeconds"),
        *("controller", "blockOwnerDeletion", "optional"),
    }
)
"""Fields in which false, 0 and an empty object are not the same as nothing. Others the API server leaves out then."""


def drifted(desired: Manifest, observed: Manifest | None) -> bool:
    """Whether applying `desired` would change `observed`: it is absent, or lacks something that is desired.

    What the API server filled in and what others added is no drift, and neither is another spelling of a quantity; a
    run that an object is to outlive, and that still owns it, is.
    """
    if observed is None:
        return True
    return not _holds(applicable(desired, observed), observed, "") or owner(observed) not in (None, owner(desired))


def applicable(desired: Manifest, observed: Manifest | None) -> Manifest:
    """`desired` without what the API server refuses to change in the object that exists.

    A claim keeps what it has, but for a size that grows once it has a volume.
    """
    if observed is None or desired["kind"] != "PersistentVolumeClaim":
        return desired
    present = observed["spec"]
    size, wanted = _size(observed), _size(desired)
    bound = observed.get("status", {}).get("phase") == "Bound"
    spec = {
        "accessModes": present["accessModes"],
        "resources": {"requests": {"storage": wanted if bound and quantity(wanted) > quantity(size) else size}},
    }
    if "storageClassName" in present:
        spec["storageClassName"] = present["storageClassName"]
    return {**desired, "spec": spec}


def _size(claim: Manifest) -> str:
    return str(claim["spec"]["resources"]["requests"]["storage"])


def _holds(desired: Any, observed: Any, field: str) -> bool:
    """Whether `observed` has all of `desired`; `field` is the name that both stand under."""
    if observed is None:
        return desired is None or (not desired and field not in ZERO_COUNTS)
    if desired is None:
        return False
    if isinstance(desired, Mapping):
        return isinstance(observed, Mapping) and _object_holds(desired, observed, field)
    if isinstance(desired, list | tuple):
        return isinstance(observed, list | tuple) and _list_holds(desired, observed, field)
    return _same(desired, observed, field)


def _object_holds(desired: Mapping[str, Any], observed: Mapping[str, Any], field: str) -> bool:
    if field in WHOLE and observed.keys() - desired.keys():
        return False
    within = field if field in QUANTITIES else None
    return all(_holds(value, observed.get(name), within or name) for name, value in desired.items())


def _list_holds(desired: Sequence[Any], observed: Sequence[Any], field: str) -> bool:
    if field in KEYED:
        found = {_key(item, field): item for item in observed}
        return all(_holds(item, found.get(_key(item, field)), "") for item in desired)
    return len(desired) == len(observed) and all(
        _holds(wanted, present, "") for wanted, present in zip(desired, observed, strict=True)
    )


def _key(item: Mapping[str, Any], field: str) -> tuple[Any, ...]:
    return tuple(item.get(key) for key in KEYED[field])


def _same(desired: Any, observed: Any, field: str) -> bool:
    if desired == observed:
        return isinstance(desired, bool) == isinstance(observed, bool)
    return field in QUANTITIES and quantity(desired) == quantity(observed)
