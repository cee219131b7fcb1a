"""Prometheus' configuration for what our monitors select, as the Prometheus operator would make it.

Debian builds Prometheus without discovery in Kubernetes: targets come from files, with the labels that it would give.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hack.rest import Document

SCRAPE_SECONDS = 5


@dataclass(frozen=True)
class Way:
    """How pods are reached from outside of the cluster: by the API server."""

    server: str
    token: str
    authority: Path
    """Certificate of the server's authority."""


def pod_job(monitor: Document, targets: Path, way: Way) -> Document:
    """Job of a PodMonitor for the `pod_targets` in a file."""
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    copied = [
        {"source_labels": [f"__meta_kubernetes_pod_label_{sanitized(label)}"], "target_label": sanitized(label)}
        for label in monitor["spec"]["podTargetLabels"]
    ]
    port = _kept("__meta_kubernetes_pod_container_port_name", endpoint["port"])
    selected = _selected("pod", monitor["spec"]["selector"]["matchLabels"])
    return _job(monitor, targets, way, [*selected, port, *copied, *_own(endpoint)])


def service_job(monitor: Document, targets: Path, way: Way) -> Document:
    """Job of a ServiceMonitor for the `service_targets` in a file."""
    [endpoint] = monitor["spec"]["endpoints"]
    port = _kept("__meta_kubernetes_endpoint_port_name", endpoint["port"])
    selected = _selected("service", monitor["spec"]["selector"]["matchLabels"])
    job = _job(monitor, targets, way, [*selected, port, *_own(endpoint)])
    return {**job, "honor_labels": endpoint.get("honorLabels", False)}


def pod_targets(pods: Iterable[Document]) -> list[Document]:
    """Every port of every pod, with the labels of discovery in role `pod`."""
    return [
        _target(_pod_labels(pod, port))
        for pod in pods
        for container in pod["spec"]["containers"]
        for port in container.get("ports", ())
    ]


def service_targets(services: Iterable[Document], pods: Iterable[Document]) -> list[Document]:
    """Every port of every service that leads to a port of a pod, with the labels of discovery in role `endpoints`."""
    return [
        _target(
            _pod_labels(pod, port)
            | _labels("service", service)
            | {"__meta_kubernetes_endpoint_port_name": outer["name"]}
        )
        for service in services
        for pod in pods
        if service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
        for outer in service["spec"]["ports"]
        for container in pod["spec"]["containers"]
        for port in container.get("ports", ())
        if outer["targetPort"] in (port.get("name"), port["containerPort"])
    ]


def sanitized(label: str) -> str:
    """A label of Kubernetes as Prometheus writes it."""
    return re.sub(r"[^a-zA-Z0-9_]", "_", label)


def _target(labels: Document) -> Document:
    return {"targets": ["by-proxy"], "labels": labels}


def _pod_labels(pod: Document, port: Mapping[str, Any]) -> Document:
    return _labels("pod", pod) | {
        "__meta_kubernetes_namespace": pod["metadata"]["namespace"],
        "__meta_kubernetes_pod_name": pod["metadata"]["name"],
        "__meta_kubernetes_pod_container_port_name": port.get("name", ""),
        "__meta_kubernetes_pod_container_port_number": str(port["containerPort"]),
    }


def _labels(kind: str, found: Document) -> Document:
    labels = found["metadata"].get("labels", {})
    return {f"__meta_kubernetes_{kind}_label_{sanitized(label)}": value for label, value in labels.items()}


def _kept(label: str, value: str) -> Document:
    return {"source_labels": [label], "regex": re.escape(value), "action": "keep"}


def _selected(kind: str, labels: Mapping[str, str]) -> list[Document]:
    return [_kept(f"__meta_kubernetes_{kind}_label_{sanitized(label)}", value) for label, value in labels.items()]


def _own(endpoint: Mapping[str, Any]) -> list[Document]:
    """Relabelings of the monitor's own."""
    names = {"sourceLabels": "source_labels", "targetLabel": "target_label"}
    return [{names.get(key, key): value for key, value in rule.items()} for rule in endpoint.get("relabelings", ())]


def _job(monitor: Document, targets: Path, way: Way, chosen: list[Document]) -> Document:
    pod = ["__meta_kubernetes_namespace", "__meta_kubernetes_pod_name", "__meta_kubernetes_pod_container_port_number"]
    return {
        "job_name": f"{monitor['metadata']['namespace']}/{monitor['metadata']['name']}",
        "scrape_interval": f"{SCRAPE_SECONDS}s",
        "scrape_timeout": f"{SCRAPE_SECONDS}s",
        "scheme": "https",
        "authorization": {"credentials": way.token},
        "tls_config": {"ca_file": str(way.authority)},
        "file_sd_configs": [{"files": [str(targets)]}],
        "relabel_configs": [
            {"source_labels": pod[:1], "target_label": "namespace"},
            {"source_labels": pod[1:2], "target_label": "pod"},
            *chosen,
            {
                "source_labels": pod,
                "regex": "(.+);(.+);(.+)",
                "target_label": "__metrics_path__",
                "replacement": "/api/v1/namespaces/$1/pods/$2:$3/proxy/metrics",
            },
            {"target_label": "__address__", "replacement": way.server.partition("://")[2]},
        ],
    }
