"""The cluster of the end-to-end tests, and waiting for what it does in its own time."""

from __future__ import annotations

import base64
import io
import shutil
import tarfile
import tomllib
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from hack.controlplane.access import Access
from hack.rest import Rest
from tests.cluster.waiting import eventually

ROOT = Path(__file__).parents[2]
VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
READER = "reader"
until = partial(eventually, pause=0.5)
"""As `eventually`, for looks that start a program."""


@dataclass(frozen=True)
class LiveCluster:
    """An administrator's way into a cluster with nodes."""

    access: Access
    images: str
    """What the names of the images begin with; `empg` is what chart and examples say."""
    directory: Path | None
    """Work directory of a cluster of hack.cluster; None for any other."""
    copies: Path
    """Where copies of run directories go if the volumes of the cluster are not on this machine."""

    @cached_property
    def rest(self) -> Rest:
        """The same access for programs, whose connections stay open."""
        return Rest(self.access.kubeconfig, "e2e")

    def volume(self, namespace: str, claim: str) -> Path:
        """What is on a bound claim: the directory itself on a cluster of hack.cluster, else a copy as of now.

        A copy has no training states, which are large. Who waits for something asks again for each look.
        """
        if self.directory is not None:
            path = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{claim}"
            return self.directory / "volumes" / f"pvc-{self.rest.get(path)['metadata']['uid']}"
        self._start_reader(namespace, claim)
        copy = self.copies / namespace / claim
        shutil.rmtree(copy, ignore_errors=True)
        # tar complains of files that go meanwhile; the pipe's exit code is that of base64
        script = "tar --format=posix --directory=/data --exclude='*/state' --create --gzip . | base64 --wrap=0"
        packed = self.access.kubectl("exec", "-n", namespace, f"{READER}-{claim}", "--", "sh", "-c", script)
        with tarfile.open(fileobj=io.BytesIO(base64.b64decode(packed))) as archive:
            archive.extractall(copy, filter="data")
        return copy

    def _start_reader(self, namespace: str, claim: str) -> None:
        """A pod that does nothing but mount the claim."""
        pod: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"{READER}-{claim}", "namespace": namespace},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 1000,
                    "fsGroup": 1000,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [
                    {
                        "name": READER,
                        "image": f"{self.images}/operator:{VERSION}",
                        "command": ["sleep", "infinity"],
                        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                    }
                ],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}],
            },
        }
        path = f"/api/v1/namespaces/{namespace}/pods/{READER}-{claim}"
        self.rest.patch(path, pod, "apply", fieldManager="e2e", force="true")
        self.access.kubectl("wait", "-n", namespace, "--for=condition=Ready", f"pod/{READER}-{claim}", "--timeout=100s")
