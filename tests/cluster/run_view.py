"""One run in a cluster, as its user and its learner see it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from run_documents import Runs
from waiting import eventually

from hack.rest import ApiError, Document, Rest

PATHS = {
    "ConfigMap": "/api/v1/namespaces/{}/configmaps",
    "ControllerRevision": "/apis/apps/v1/namespaces/{}/controllerrevisions",
    "Deployment": "/apis/apps/v1/namespaces/{}/deployments",
    "Event": "/api/v1/namespaces/{}/events",
    "Job": "/apis/batch/v1/namespaces/{}/jobs",
    "PersistentVolumeClaim": "/api/v1/namespaces/{}/persistentvolumeclaims",
    "Role": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/roles",
    "RoleBinding": "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings",
    "Service": "/api/v1/namespaces/{}/services",
    "ServiceAccount": "/api/v1/namespaces/{}/serviceaccounts",
}
_RUNS = "/apis/empg.dev/v1alpha1/namespaces/{}/empgruns"
_ABSENT = 404


class RunView:
    """A run that was created in a namespace."""

    def __init__(self, rest: Rest, namespace: str, document: Document, *, volume: bool = True) -> None:
        """Creates it, and a volume that its claim is bound to, unless told otherwise."""
        self.rest = rest
        self._namespace = namespace
        self._runs = Runs(rest, namespace)
        if volume:
            made = _volume(namespace, document)
            path = f"/api/v1/persistentvolumes/{made['metadata']['name']}"
            rest.patch(path, made, "apply", fieldManager="test", force="true")
        self.created = self._runs.create(document)
        self.name: str = self.created["metadata"]["name"]
        self.learner_pods = f"empg.dev/run={self.name},empg.dev/role=learner"
        """Label selector of the learner's pods."""
        self.sampler_pods = f"empg.dev/run={self.name},empg.dev/role=sampler"
        """The same of the samplers'."""

    def status(self) -> Mapping[str, Any]:
        """Its status; empty before there is one."""
        found: Mapping[str, Any] = self.document().get("status", {})
        return found

    def document(self) -> Document:
        """The run as it is now."""
        return self.rest.get(self._path)

    def condition(self, kind: str) -> Mapping[str, str]:
        """A condition of it; empty before there is one."""
        found = [one for one in self.status().get("conditions", ()) if one["type"] == kind]
        return found[0] if found else {}

    def until_reason(self, kind: str, reason: str, seconds: float = 30.0) -> Mapping[str, str]:
        """Wait for a condition to have a reason; the condition then."""

        def look() -> Mapping[str, str] | None:
            found = self.condition(kind)
            return found if found.get("reason") == reason else None

        return eventually(look, f"condition {kind} of {self.name} with reason {reason}", seconds)

    def until_phase(self, phase: str, seconds: float = 30.0) -> Mapping[str, Any]:
        """Wait for a phase; the status then."""
        return self._until(lambda status: status.get("phase") == phase, f"phase {phase}", seconds)

    def until_attempt(self, attempt: int, seconds: float = 60.0) -> Document:
        """Wait for the Job of an attempt; the Job."""
        name = f"{self.name}-learner-{attempt}"
        return eventually(lambda: self.child("Job", name), f"Job {name}", seconds)

    def until_condition(self, kind: str, status: str, seconds: float = 30.0) -> Mapping[str, str]:
        """Wait for a condition to have a status; the condition then."""

        def look() -> Mapping[str, str] | None:
            found = self.condition(kind)
            return found if found.get("status") == status else None

        return eventually(look, f"condition {kind}={status} of {self.name}", seconds)

    def change(self, spec: Document) -> None:
        """Merge this into its spec."""
        self.rest.patch(self._path, {"spec": spec})

    def report(self, recent: list[Document] | None = None, **progress: Any) -> None:
        """Say as its learner how far it is."""
        complete = {"attempt": 1, "iteration": 0, "iterations": 3, "phase": "sampling", **progress}
        body: Document = {"progress": {**complete, "updated": "2026-01-01T00:00:00Z"}}
        self._runs.apply_status(self.created, body | ({"recent": recent} if recent else {}), "empg-learner")

    def report_sampled(self, attempt: int) -> None:
        """Say as a sampler under `Alternate` that all units of an attempt are there."""
        self._runs.apply_status(self.created, {"sampled": attempt}, "empg-sampler")

    def child(self, kind: str, name: str) -> Document | None:
        """A child, if it exists."""
        try:
            return self.rest.get(f"{self._collection(kind)}/{name}")
        except ApiError as error:
            if error.code == _ABSENT:
                return None
            raise

    def children(self) -> dict[tuple[str, str], Document]:
        """All that carries its label, by (kind, name)."""
        selector = f"empg.dev/run={self.name}"
        return {
            (kind, item["metadata"]["name"]): item
            for kind in PATHS
            for item in self.rest.get(self._collection(kind), labelSelector=selector)["items"]
        }

    def events(self) -> list[str]:
        """Reasons of its events, oldest first."""
        found = self.rest.get(self._collection("Event"), fieldSelector=f"involvedObject.name={self.name}")["items"]
        return [event["reason"] for event in sorted(found, key=lambda event: event["metadata"]["resourceVersion"])]

    def told(self, reason: str) -> list[str]:
        """Messages of its events with this reason."""
        selector = f"involvedObject.name={self.name},reason={reason}"
        found = self.rest.get(self._collection("Event"), fieldSelector=selector)["items"]
        return [event["message"] for event in found]

    def until_told(self, reason: str) -> list[str]:
        """Wait for an event with this reason, which follows the status that it is about; the messages of all."""
        return eventually(lambda: self.told(reason), f"event {reason} of {self.name}")

    def patch_child(self, kind: str, name: str, change: Document) -> Document:
        """Merge a change into a child, as any user may; the child then."""
        return self.rest.patch(f"{self._collection(kind)}/{name}", change)

    def delete_child(self, kind: str, name: str) -> None:
        """Delete a child, and what it owns in the background."""
        self.rest.delete(f"{self._collection(kind)}/{name}", propagationPolicy="Background")

    def delete(self) -> None:
        """Delete the run."""
        self.rest.delete(self._path, propagationPolicy="Background")

    @property
    def _path(self) -> str:
        return f"{_RUNS.format(self._namespace)}/{self.name}"

    def _collection(self, kind: str) -> str:
        return PATHS[kind].format(self._namespace)

    def _until(self, holds: Callable[[Mapping[str, Any]], bool], what: str, seconds: float) -> Mapping[str, Any]:
        def look() -> Mapping[str, Any] | None:
            status = self.status()
            return status if holds(status) else None

        return eventually(look, f"{what} of {self.name}", seconds)


def _volume(namespace: str, run: Document) -> Document:
    claim = f"{run['metadata']['name']}-data"
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{namespace}.{claim}"},
        "spec": {
            "capacity": {"storage": "1Ti"},
            "accessModes": ["ReadWriteMany", "ReadWriteOnce"],
            "claimRef": {"namespace": namespace, "name": claim},
            "hostPath": {"path": "/nowhere"},
            "storageClassName": run["spec"].get("storage", {}).get("storageClassName", ""),
        },
    }
