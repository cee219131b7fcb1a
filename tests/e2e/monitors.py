"""Prometheus' configuration for what our monitors select, as the Prometheus operator would make it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hack.rest import Document

SCRAPE_SECONDS = 5


def pod_job(monitor: Document, server: str, token: str, authority: str) -> Document:
    """Job of a PodMonitor."""
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    targets = [
        {
            "source_labels": [f"__meta_kubernetes_pod_label_{sanitized(label)}"],
            "target_label": sanitized(label),
        }
        for label in monitor["spec"]["podTargetLabels"]
    ]
    port = {
        "source_labels": ["__meta_kubernetes_pod_container_port_name"],
        "regex": endpoint["port"],
        "action": "keep",
    }
    selected = _selected("pod", monitor["spec"]["selector"]["matchLabels"])
    return _job(monitor, "pod", [*selected, port, *targets, *_own(endpoint)], server, token, authority)


def service_job(monitor: Document, server: str, token: str, authority: str) -> Document:
    """Job of a ServiceMonitor."""
    [endpoint] = monitor["spec"]["endpoints"]
    port = {
        "source_labels": ["__meta_kubernetes_endpoint_port_name"],
        "regex": endpoint["port"],
        "action": "keep",
    }
    selected = _selected("service", monitor["spec"]["selector"]["matchLabels"])
    job = _job(monitor, "endpoints", [*selected, port, *_own(endpoint)], server, token, authority)
    return {**job, "honor_labels": endpoint.get("honorLabels", False)}


def sanitized(label: str) -> str:
    """A label of Kubernetes as Prometheus writes it."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", label)


def _selected(kind: str, labels: Mapping[str, str]) -> list[Document]:
    return [
        {
            "source_labels": [f"__meta_kubernetes_{kind}_label_{sanitized(label)}"],
            "regex": re.escape(value),
            "action": "keep",
        }
        for label, value in labels.items()
    ]


def _own(endpoint: Mapping[str, Any]) -> list[Document]:
    """Relabelings of the monitor's own."""
    names = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
    return [{names.get(key, key): value for key, value in rule.items()} for rule in endpoint.get("relabelings", ())]


def _job(monitor: Document, role: str, chosen: list[Document], server: str, token: str, authority: str) -> Document:
    """Pods are found, and reached, by way of the API server: Prometheus runs outside of the cluster."""
    namespace = monitor["metadata"]["namespace"]
    trusted = {"authorization": {"credentials": token}, "tls_config": {"ca_file": authority}}
    pod = ["__meta_kubernetes_namespace", "__meta_kubernetes_pod_name", "__meta_kubernetes_pod_container_port_number"]
    return {
        "job_name": f"{namespace}/{monitor['metadata']['name']}",
        "scrape_interval": f"{SCRAPE_SECONDS}s",
        "scrape_timeout": f"{SCRAPE_SECONDS}s",
        "scheme": "https",
        **trusted,
        "kubernetes_sd_configs": [
            {"role": role, "api_server": server, "namespaces": {"names": [namespace]}, **trusted}
        ],
        "relabel_configs": [
            {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
            {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
            *chosen,
            {
                "source_labels": pod,
                "regex": "(.+);(.+);(.+)",
                "target_label": "__metrics_path__",
                "replacement": "/api/v1/namespaces/$1/pods/$2:$3/proxy/metrics",
            },
            {"target_label": "__address__", "replacement": server.partition("://")[2]},
        ],
    }
