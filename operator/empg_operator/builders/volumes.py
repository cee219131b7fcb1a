"""Volumes of a pod and their mounts in our container."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from empg.api.run import EMPGRun
from empg_operator import names
from empg_operator.builders.storage import Parent, claim_name


@dataclass(frozen=True)
class Volume:
    """A volume and where our container has it."""

    name: str
    source: dict[str, Any]
    mount_path: str
    read_only: bool = False

    def volume(self) -> dict[str, Any]:
        return {"name": self.name, **self.source}

    def mount(self) -> dict[str, Any]:
        mount: dict[str, Any] = {"name": self.name, "mountPath": self.mount_path}
        return mount | ({"readOnly": True} if self.read_only else {})


def required(run: EMPGRun, parent: Parent | None) -> tuple[Volume, ...]:
    """Volumes without which the programs do not work; a `podTemplate` does not change them.

    The ConfigMap is mounted as a directory: the kubelet never renews a `subPath` of one.
    """
    volumes = [
        Volume("run", _claim(claim_name(run)), names.MOUNT),
        Volume("spec", {"configMap": {"name": names.config_map(run.metadata.name)}}, names.SPEC_DIR, read_only=True),
    ]
    if parent is not None and parent.claim != claim_name(run):
        volumes.append(Volume("parent", _claim(parent.claim), names.PARENT_MOUNT, read_only=True))
    return tuple(volumes)


def scratch() -> tuple[Volume, ...]:
    """Room for temporary files and shared memory, which a `podTemplate` may replace by something larger.

    The root file system is read-only; the container runtime's own /dev/shm of 64 MiB is too small for NCCL and vLLM.
    """
    return (
        Volume("tmp", {"emptyDir": {}}, "/tmp"),
        Volume("shm", {"emptyDir": {"medium": "Memory"}}, "/dev/shm"),
    )


def _claim(name: str) -> dict[str, Any]:
    return {"persistentVolumeClaim": {"claimName": name}}
