"""Volumes of the storage class `local`: a directory for each claim, which all nodes of this machine see.

`python -m hack.volumes KUBECONFIG DIRECTORY` provides them until it is ended, also to claims that name no class.
Claims may be shared by many pods and may grow; a volume goes with its claim.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hack.rest import ApiError, Rest, Watch

CLASS = "local"
_VOLUMES = "/api/v1/persistentvolumes"
_ABSENT, _EXISTS = 404, 409


class LocalVolumes:
    """Provides volumes to the claims of one cluster."""

    def __init__(self, kubeconfig: Path, directory: Path) -> None:
        """Volumes are directories below `directory`, which must be an absolute path."""
        self._rest = Rest(kubeconfig, "local-volumes")
        self._directory = directory
        self._watch = Watch()

    def create_class(self, default: bool = False) -> None:
        """Create the storage class unless it is there; `default` for claims that name none."""
        marks = {"storageclass.kubernetes.io/is-default-class": str(default).lower()}
        about = {
            "metadata": {"name": CLASS, "annotations": marks},
            "provisioner": "empg.dev/local",
            "allowVolumeExpansion": True,
            "volumeBindingMode": "Immediate",
        }
        try:
            self._rest.create("/apis/storage.k8s.io/v1/storageclasses", about)
        except ApiError as error:
            if error.code != _EXISTS:
                raise

    def serve(self) -> None:
        """Follow the claims until `end`."""
        while not self._watch.ended:
            for change, claim in self._rest.watch("/api/v1/persistentvolumeclaims", self._watch):
                if claim["spec"].get("storageClassName") != CLASS:
                    continue
                phase = "Gone" if change == "DELETED" else claim["status"].get("phase")
                if phase == "Gone":
                    self._remove(claim)
                elif phase == "Pending":
                    self._provide(claim)
                elif phase == "Bound" and claim["spec"]["resources"]["requests"] != claim["status"]["capacity"]:
                    self._grow(claim)

    def end(self) -> None:
        """Let `serve` return."""
        self._watch.end()

    def _provide(self, claim: Mapping[str, Any]) -> None:
        path = self._directory / _name(claim)
        path.mkdir(parents=True, exist_ok=True)
        about = claim["metadata"]
        everywhere = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "Exists"}]}
        spec = {
            "storageClassName": CLASS,
            "accessModes": claim["spec"]["accessModes"],
            "capacity": claim["spec"]["resources"]["requests"],
            "claimRef": {key: about[key] for key in ("namespace", "name", "uid")},
            "persistentVolumeReclaimPolicy": "Retain",  # until the claim's deletion is seen here
            "local": {"path": str(path)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [everywhere]}},
        }
        try:
            self._rest.create(_VOLUMES, {"metadata": {"name": _name(claim)}, "spec": spec})
        except ApiError as error:
            if error.code != _EXISTS:
                raise

    def _grow(self, claim: Mapping[str, Any]) -> None:
        capacity = {"capacity": claim["spec"]["resources"]["requests"]}
        about = claim["metadata"]
        path = f"/api/v1/namespaces/{about['namespace']}/persistentvolumeclaims/{about['name']}/status"
        self._rest.patch(f"{_VOLUMES}/{claim['spec']['volumeName']}", {"spec": capacity})
        self._rest.patch(path, {"status": {**capacity, "conditions": []}})

    def _remove(self, claim: Mapping[str, Any]) -> None:
        try:
            self._rest.delete(f"{_VOLUMES}/{_name(claim)}")
        except ApiError as error:
            if error.code != _ABSENT:
                raise
        path = self._directory / _name(claim)
        if path.exists():
            shutil.rmtree(path)


def _name(claim: Mapping[str, Any]) -> str:
    return f"pvc-{claim['metadata']['uid']}"


if __name__ == "__main__":
    volumes = LocalVolumes(Path(sys.argv[1]), Path(sys.argv[2]).resolve())
    volumes.create_class(default=True)
    volumes.serve()
