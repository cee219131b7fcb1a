"""The kinds of objects that the operator reads and writes, and their paths in the API."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from empg_operator import names


@dataclass(frozen=True)
class Kind:
    """A namespaced kind of the API."""

    api_version: str
    """Group and version, as objects carry them."""
    name: str
    plural: str
    selector: str = names.SELECTOR
    """Label selector of the objects that concern us; empty: all."""

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """Path of an object, or of a collection where `name` is empty; of all namespaces where there is none.

        A name may come from a status, which a run's pods write to: it leads to no other kind.
        """
        root = f"/apis/{self.api_version}" if "/" in self.api_version else f"/api/{self.api_version}"
        parts = (root, f"namespaces/{namespace}" if namespace else "", self.plural, quote(name, safe=""), subresource)
        return "/".join(part for part in parts if part)


RUN = Kind(f"{names.GROUP}/{names.VERSION}", "EMPGRun", names.PLURAL, selector="")
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
JOB = Kind("batch/v1", "Job", "jobs")
REVISION = Kind("apps/v1", "ControllerRevision", "controllerrevisions")
CLAIM = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")
POD_MONITOR = Kind("monitoring.coreos.com/v1", "PodMonitor", "podmonitors")
POD = Kind("v1", "Pod", "pods")
EVENT = Kind("v1", "Event", "events", selector="")
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases", selector="")

WATCHED = (RUN, DEPLOYMENT, JOB)
"""Kinds whose changes are seen at once."""
LISTED = (
    REVISION,
    Kind("v1", "ConfigMap", "configmaps"),
    Kind("v1", "Service", "services"),
    Kind("v1", "ServiceAccount", "serviceaccounts"),
    Kind("rbac.authorization.k8s.io/v1", "Role", "roles"),
    Kind("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings"),
    CLAIM,
    Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
)
"""Kinds that only we write: what others do to them is seen at the next list."""

_BY_NAME = {kind.name: kind for kind in (*WATCHED, *LISTED, POD_MONITOR, POD)}


def by_name(name: str) -> Kind:
    """The kind that manifests call so. KeyError: the operator has no business with it."""
    return _BY_NAME[name]
