"""What the pod templates of sampler and learner have in common, and what holds whatever `podTemplate` says."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from empg.api.run import EMPGRun
from empg_operator import names
from empg_operator.builders.pod_patch import check
from empg_operator.builders.volumes import Volume
from empg_operator.quantity import quantity
from empg_operator.settings import Settings
from empg_operator.strategic import merge

USER = 1000
"""User and group of the programs; files in the run directory belong to them."""
NO_PROXY_LABELS = {"sidecar.istio.io/inject": "false"}
NO_PROXY_ANNOTATIONS = {"linkerd.io/inject": "disabled"}
"""Service meshes give no proxy to these pods unless `podTemplate` says otherwise: one that is an ordinary container
outlives the learner, whose pod then never ends, and takes the ports that ranks choose for NCCL."""


def pod_template(
    run: EMPGRun,
    role: names.Role,
    settings: Settings,
    container: dict[str, Any],
    *,
    required: Sequence[Volume],
    scratch: Sequence[Volume],
    threads_shared_by: int,
    annotations: Mapping[str, str] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """Pod template of a role with the user's `podTemplate` merged over it.

    Args:
        run: whose pods they are.
        role: what they are.
        settings: of this operator.
        container: what `container` built.
        required: volumes that hold whatever `podTemplate` says.
        scratch: volumes that it may change.
        threads_shared_by: processes that share the container's CPU limit.
        annotations: of the pods.
        spec: further fields of the pod's spec.

    ValueError names the part of `podTemplate` that can't be used, and the remedy.
    """
    built = {
        "metadata": {
            "labels": names.labels(run.metadata.name, role) | NO_PROXY_LABELS,
            "annotations": {
                "kubectl.kubernetes.io/default-container": role,
                **NO_PROXY_ANNOTATIONS,
                **(annotations or {}),
            },
        },
        "spec": {
            "serviceAccountName": names.service_account(run.metadata.name, role),
            # A Service of the name `vllm` would set VLLM_PORT, which vLLM takes for a number.
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                # Else the kubelet walks the whole run directory at every start.
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [volume.volume() for volume in (*required, *scratch)],
            **_scheduling(run),
            **spec,
        },
    }
    if settings.image_pull_secrets:
        built["spec"]["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    patch = (run.spec.sampler if role == "sampler" else run.spec.learner).pod_template
    path = f"spec.{role}.podTemplate"
    merged = merge(built, patch, path)
    check(merged, patch, role, path)
    _hold(merged, built, role, required)
    _count_threads(our_container(merged, role), threads_shared_by, path)
    return merged


def our_container(template: Mapping[str, Any], role: names.Role) -> dict[str, Any]:
    """The container of the role in a template."""
    containers: list[dict[str, Any]] = template["spec"]["containers"]
    return next(container for container in containers if container["name"] == role)


def extended(
    template: Mapping[str, Any], role: names.Role, *, arguments: Sequence[str] = (), environment: Mapping[str, str]
) -> dict[str, Any]:
    """A copy of a template whose container has further arguments and variables."""
    copied = copy.deepcopy(dict(template))
    container = our_container(copied, role)
    container["args"] = [*container.get("args", ()), *arguments]
    set_variables(container, environment)
    return copied


def set_variables(container: dict[str, Any], environment: Mapping[str, str]) -> None:
    """Set variables of a container; ones of the same name are replaced."""
    kept = [entry for entry in container.get("env", ()) if entry["name"] not in environment]
    container["env"] = [*kept, *({"name": name, "value": value} for name, value in environment.items())]


def _scheduling(run: EMPGRun) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if run.spec.priority_class_name is not None:
        fields["priorityClassName"] = run.spec.priority_class_name
    storage = run.spec.storage
    if storage.claim_name is None and storage.access_mode == "ReadWriteOnce":
        # The scheduler itself does not keep pods of such a claim together, and those elsewhere would never start.
        # The first pod matches its own term and may go anywhere.
        term = {
            "labelSelector": {"matchLabels": {names.RUN_LABEL: run.metadata.name}},
            "topologyKey": "kubernetes.io/hostname",
        }
        fields["affinity"] = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    return fields


def _hold(merged: dict[str, Any], built: dict[str, Any], role: names.Role, required: Sequence[Volume]) -> None:
    """Put back into a merged template what Deployment, Job, Service and programs rely on."""
    ours = {name: value for name, value in built["metadata"]["labels"].items() if name not in NO_PROXY_LABELS}
    merged.setdefault("metadata", {}).setdefault("labels", {}).update(ours)
    spec = merged["spec"]
    spec |= {field: built["spec"][field] for field in ("restartPolicy", "subdomain") if field in built["spec"]}
    _replace(spec, "volumes", "name", [volume.volume() for volume in required])
    _replace(our_container(merged, role), "volumeMounts", "mountPath", [volume.mount() for volume in required])
    if spec.get("hostNetwork"):
        # With the default, a pod on the host's network does not find the learner's Service.
        spec.setdefault("dnsPolicy", "ClusterFirstWithHostNet")


def _replace(parent: dict[str, Any], field: str, key: str, items: Sequence[dict[str, Any]]) -> None:
    """Make each of `items` an item of a list, in place of the one with the same key."""
    wanted = {item[key]: item for item in items}
    kept = [wanted.pop(item[key], item) for item in parent.get(field, ())]
    parent[field] = [*kept, *wanted.values()]


def _count_threads(container: dict[str, Any], processes: int, path: str) -> None:
    """Tell OpenMP the container's CPU limit: it would count the cores of the node."""
    limit = container.get("resources", {}).get("limits", {}).get("cpu")
    if limit is None or "OMP_NUM_THREADS" in {entry["name"] for entry in container.get("env", ())}:
        return
    try:
        cpus = quantity(limit)
    except ValueError as error:
        raise ValueError(f"{path}: limits.cpu of container {container['name']!r}: {error}") from error
    set_variables(container, {"OMP_NUM_THREADS": str(max(1, int(cpus / processes)))})
