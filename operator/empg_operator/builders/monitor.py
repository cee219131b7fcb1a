"""The PodMonitor by which Prometheus finds a run's pods."""

from __future__ import annotations

from typing import Any

from empg.api.run import EMPGRun
from empg_operator import names
from empg_operator.builders.container import metrics_port
from empg_operator.builders.metadata import metadata
from empg_operator.settings import Settings

_ROLE = "__meta_kubernetes_pod_label_empg_dev_role"
_INDEX = "__meta_kubernetes_pod_label_batch_kubernetes_io_job_completion_index"


def pod_monitor(run: EMPGRun, settings: Settings) -> dict[str, Any] | None:
    """PodMonitor of samplers and learner; None if neither has a metrics port."""
    if not any(metrics_port(section.metrics_port) for section in (run.spec.sampler, run.spec.learner)):
        return None
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": metadata(run, run.metadata.name, labels=settings.pod_monitor_labels),
        "spec": {
            "selector": {"matchLabels": {names.RUN_LABEL: run.metadata.name}},
            "podTargetLabels": [names.RUN_LABEL, names.ROLE_LABEL],
            "podMetricsEndpoints": [
                {
                    "port": "metrics",
                    # Only the learner's first node serves metrics.
                    "relabelings": [{"sourceLabels": [_ROLE, _INDEX], "regex": "learner;[^0].*", "action": "drop"}],
                }
            ],
        },
    }
