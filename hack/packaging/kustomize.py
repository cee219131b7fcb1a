"""The operator as plain manifests, rendered from the chart with its default values."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

from hack import tools

NAMESPACE = "empg-system"
_SECONDS = 60
_KUBERNETES = "1.36.0"
"""Version whose features the chart may use; a Helm without cluster would assume its own."""
_HELM_ONLY = ("helm.sh/chart", "app.kubernetes.io/managed-by")


def render(chart: Path, values: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """The objects of the chart but for hooks and the custom resource definition.

    Raises:
        subprocess.CalledProcessError: Helm refuses the chart; it has said why.
    """
    command = [str(tools.path("helm")), "template", "empg", str(chart), "--namespace", NAMESPACE, "--no-hooks"]
    command += ["--kube-version", _KUBERNETES, "--set", "crds.enabled=false"]
    command += [argument for value in values for argument in ("--set", value)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=_SECONDS)
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def operator_manifest(chart: Path) -> str:
    """YAML of the operator, without the labels that speak of Helm."""
    objects = render(chart)
    for document in objects:
        labels = document["metadata"]["labels"]
        for label in _HELM_ONLY:
            labels.pop(label, None)
    return (
        "# Made by `make generate` from charts/empg, for `kubectl apply --server-side -k manifests`.\n"
        + "---\n"
        + yaml.safe_dump_all(objects, sort_keys=False, width=120)
    )
