"""Our container in a pod, as far as sampler and learner have it in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from empg.api.run import EMPGRun
from empg_operator import names
from empg_operator.builders.volumes import Volume
from empg_operator.settings import Settings

CACHES = {
    "HOME": "/tmp",
    "HF_HOME": "/tmp/huggingface",
    "MPLCONFIGDIR": "/tmp/matplotlib",
    "TORCHINDUCTOR_CACHE_DIR": "/tmp/torchinductor",
    "TRITON_CACHE_DIR": "/tmp/triton",
    "VLLM_CACHE_ROOT": "/tmp/vllm",
    "XDG_CACHE_HOME": "/tmp/cache",
    "XDG_CONFIG_HOME": "/tmp/config",
}
"""Where libraries write, whatever the image says: the root file system is read-only."""


def metrics_port(given: int | None) -> int:
    """Port of metrics and probes in a cluster; 0: none."""
    return names.METRICS_PORT if given is None else given


def run_variables(run: EMPGRun) -> dict[str, str]:
    """Variables by which a program that reports knows its run."""
    assert run.metadata.namespace is not None, "the API server gives every run a namespace"
    return {"EMPG_RUN": run.metadata.name, "EMPG_NAMESPACE": run.metadata.namespace}


def container(
    role: names.Role,
    settings: Settings,
    *,
    image: str,
    command: tuple[str, ...],
    arguments: tuple[str, ...],
    environment: Mapping[str, str],
    accelerator: str,
    devices: int,
    port: int,
    volumes: Iterable[Volume],
) -> dict[str, Any]:
    """The container; `port` 0 leaves the metrics port out, an empty `accelerator` the devices."""
    built: dict[str, Any] = {
        "name": role,
        "image": image,
        "imagePullPolicy": settings.image_pull_policy,
        "command": list(command),
        "args": list(arguments),
        "env": [
            # First, because a variable may refer only to those before it.
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            *({"name": name, "value": value} for name, value in {**CACHES, **environment}.items()),
        ],
        "volumeMounts": [volume.mount() for volume in volumes],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if accelerator:
        # Requests of extended resources equal their limits.
        built["resources"] = {"limits": {accelerator: str(devices)}}
    if port:
        built["ports"] = [{"name": "metrics", "containerPort": port}]
    return built
