"""Claims of the storage class `local` behave like those of a cluster with shared storage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from simulated_node import SimulatedNode
from waiting import eventually

from hack.controlplane.access import Access

pytestmark = pytest.mark.usefixtures("volumes")


def claim(cluster: Access, namespace: str) -> dict[str, object]:
    spec = {
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "local",
        "resources": {"requests": {"storage": "1Gi"}},
    }
    document = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "runs"}, "spec": spec}
    cluster.kubectl("create", "-n", namespace, "-f", "-", input=json.dumps(document))
    state = eventually(lambda: bound(cluster, namespace), "bound claim")
    return json.loads(cluster.kubectl("get", "persistentvolume", state["spec"]["volumeName"], "-o", "json"))


def bound(cluster: Access, namespace: str) -> dict[str, dict[str, str]] | None:
    state = json.loads(cluster.kubectl("get", "persistentvolumeclaim", "runs", "-n", namespace, "-o", "json"))
    return state if state["status"].get("phase") == "Bound" else None


def test_pods_with_a_claim_are_scheduled(control_plane: Access, namespace: str, node: SimulatedNode) -> None:
    claim(control_plane, namespace)
    mount = {"name": "runs", "persistentVolumeClaim": {"claimName": "runs"}}
    for name in ("a", "b"):
        spec = {"containers": [{"name": "c", "image": "example/work"}], "volumes": [mount]}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        control_plane.kubectl("create", "-n", namespace, "-f", "-", input=json.dumps(pod))
    assert len(node.ready(namespace, count=2)) == 2


def test_a_volume_grows_with_its_claim_and_goes_with_it(control_plane: Access, namespace: str) -> None:
    volume = claim(control_plane, namespace)
    directory = Path(volume["spec"]["local"]["path"])  # type: ignore[index]
    assert directory.is_dir()
    larger = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
    control_plane.kubectl("patch", "persistentvolumeclaim", "runs", "-n", namespace, "-p", json.dumps(larger))

    def size() -> bool:
        state = bound(control_plane, namespace)
        return state is not None and state["status"]["capacity"] == {"storage": "2Gi"}

    eventually(size, "larger volume")
    control_plane.kubectl("delete", "persistentvolumeclaim", "runs", "-n", namespace)
    eventually(lambda: not directory.exists(), "removal of the directory")
    name = volume["metadata"]["name"]  # type: ignore[index]

    def volumes() -> str:
        return control_plane.kubectl("get", "persistentvolumes", "-o", "name")

    eventually(lambda: name not in volumes(), "deletion of the volume")
