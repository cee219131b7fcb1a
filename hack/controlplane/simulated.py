"""Many nodes without containers, for tests of scale: kwok says that their pods run."""

from __future__ import annotations

from pathlib import Path

from hack import tools
from hack.controlplane.plane import ControlPlane
from hack.rest import Rest

_STAGES = Path(__file__).with_name("stages.yaml")
_MARK = "kwok.x-k8s.io/node"
"""Annotation of the nodes that are kwok's, so that others may stand beside them."""
_RESOURCES = {"cpu": "128", "memory": "1Ti", "pods": "110", "nvidia.com/gpu": "8"}
_READY_SECONDS = 60.0


def add_nodes(plane: ControlPlane, count: int) -> None:
    """Add simulated nodes `node-0` to `node-<count - 1>` and wait until they take pods; call it once.

    Raises:
        ToolError: kwok can't be had.
        ProcessError: kwok ended, or the nodes were not ready in time.
    """
    plane.processes.start(
        "kwok",
        str(tools.path("kwok")),
        f"--kubeconfig={plane.kubeconfig}",
        f"--config={_STAGES}",
        f"--manage-nodes-with-annotation-selector={_MARK}=fake",
        "--node-lease-duration-seconds=40",
    )
    rest = Rest(plane.kubeconfig, "hack")
    for index in range(count):
        rest.create("/api/v1/nodes", _node(f"node-{index}"))

    def ready() -> bool:
        nodes = rest.get("/api/v1/nodes")["items"]
        return sum(not node["spec"].get("taints") for node in nodes) >= count

    plane.processes.wait("kwok", ready, _READY_SECONDS)


def _node(name: str) -> dict[str, object]:
    about = {"name": name, "labels": {"kubernetes.io/hostname": name}, "annotations": {_MARK: "fake"}}
    return {"metadata": about, "status": {"capacity": _RESOURCES, "allocatable": _RESOURCES}}
