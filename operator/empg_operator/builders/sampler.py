"""Sampler pods: a Deployment of vLLM engines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from empg.api.run import EMPGRun
from empg.api.status import Lineage
from empg_operator import names
from empg_operator.builders.container import container, metrics_port, run_variables
from empg_operator.builders.metadata import metadata, queue_labels
from empg_operator.builders.pod import extended, pod_template
from empg_operator.builders.storage import run_directory
from empg_operator.builders.volumes import required, scratch
from empg_operator.settings import Settings

GRACE_SECONDS = 60
"""To release claims after SIGTERM."""
PROGRESS_SECONDS = 86_400
"""A Deployment that makes no progress for so long says so; before, images are pulled and models loaded."""


def sampler_pod_template(run: EMPGRun, settings: Settings, lineage: Lineage | None) -> dict[str, Any]:
    """Pod template of the samplers, which is the same whatever the lineage: they read the run directory alone.

    ValueError names the part of `spec.sampler.podTemplate` that can't be used, and the remedy.
    """
    del lineage
    sampler = run.spec.sampler
    port = metrics_port(sampler.metrics_port)
    reports = sampler.roll_strategy == "Alternate"
    volumes, room = required(run, None), scratch()
    built = container(
        "sampler",
        settings,
        image=sampler.image or settings.sampler_image,
        command=("empg-sampler",),
        arguments=(
            run_directory(run),
            *("--spec", names.SPEC_FILE),
            *("--id", "$(POD_NAME)"),
            *("--metrics-port", str(port)),
            *(("--report",) if reports else ()),
        ),
        environment=run_variables(run) if reports else {},
        accelerator=sampler.accelerator,
        devices=sampler.tensor_parallel,
        port=port,
        volumes=(*volumes, *room),
    )
    if port:
        built |= _probes()
    return pod_template(
        run,
        "sampler",
        settings,
        built,
        required=volumes,
        scratch=room,
        threads_shared_by=sampler.tensor_parallel,
        automountServiceAccountToken=reports,
        terminationGracePeriodSeconds=GRACE_SECONDS,
        restartPolicy="Always",
    )


def sampler_deployment(
    run: EMPGRun,
    template: Mapping[str, Any],
    replicas: int,
    revision: str,
    policy: int | None,
    attempt: int | None,
) -> dict[str, Any]:
    """Deployment of the samplers.

    Args:
        run: whose samplers they are.
        template: frozen pod template, as `sampler_pod_template` built it.
        replicas: pods that are wanted now.
        revision: name of the ControllerRevision that holds the template; another one replaces the pods.
        policy: version that the pods are to serve under `RollingUpdate`; another one replaces the pods.
        attempt: under `Alternate`, the learner's attempt whose units are to be sampled.
    """
    pods = extended(
        template,
        "sampler",
        arguments=() if policy is None else ("--policy", str(policy)),
        environment={} if attempt is None else {"EMPG_ATTEMPT": str(attempt)},
    )
    pods["metadata"]["labels"][names.REVISION_LABEL] = revision
    if policy is not None:
        pods["metadata"].setdefault("annotations", {})[names.POLICY_ANNOTATION] = str(policy)
    name = names.sampler_deployment(run.metadata.name)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(run, name, "sampler", labels={names.REVISION_LABEL: revision} | queue_labels(run)),
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": names.selector(run.metadata.name, "sampler")},
            "strategy": _strategy(run),
            "progressDeadlineSeconds": PROGRESS_SECONDS,
            "revisionHistoryLimit": 2,
            "template": pods,
        },
    }


def _strategy(run: EMPGRun) -> dict[str, Any]:
    sampler = run.spec.sampler
    if sampler.roll_strategy == "Alternate":
        return {"type": "Recreate"}
    # In place, pods are replaced for an edit alone; one more than asked for would wait for a device that is not there.
    bounds: dict[str, int | str] = {"maxSurge": 0, "maxUnavailable": "25%"}
    if sampler.roll_strategy == "RollingUpdate":
        bounds = {"maxSurge": sampler.max_surge, "maxUnavailable": sampler.max_unavailable}
    return {"type": "RollingUpdate", "rollingUpdate": bounds}


def _probes() -> dict[str, Any]:
    """A sampler that holds no policy yet is alive and not ready: it may wait for hours for a queued learner."""

    def get(path: str, period: int, failures: int) -> dict[str, Any]:
        return {
            "httpGet": {"path": path, "port": "metrics"},
            "periodSeconds": period,
            "failureThreshold": failures,
            "timeoutSeconds": 5,
        }

    return {
        # Ten minutes to load the libraries from a cold disk.
        "startupProbe": get("/healthz", 5, 120),
        "readinessProbe": get("/readyz", 10, 3),
        "livenessProbe": get("/healthz", 20, 6),
    }
