"""Who talks to whom: the learner's headless Service, and NetworkPolicies that allow nothing else."""

from __future__ import annotations

from typing import Any

from empg.api.run import EMPGRun
from empg_operator import names
from empg_operator.builders.access import ROLES, reports
from empg_operator.builders.container import metrics_port
from empg_operator.builders.metadata import metadata
from empg_operator.settings import Settings

DNS_PORTS = (53, 5353)
"""Of the cluster's DNS pods. A policy sees the port of the pod, not the Service's 53; OpenShift's listen on 5353."""


def learner_service(run: EMPGRun) -> dict[str, Any]:
    """Gives learner pods names, before they are ready: they find each other to become so."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(run, names.learner_service(run.metadata.name), "learner"),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": names.selector(run.metadata.name, "learner"),
            "ports": [{"name": "rendezvous", "port": names.MASTER_PORT}],
        },
    }


def network_policies(run: EMPGRun, settings: Settings) -> tuple[dict[str, Any], ...]:
    """A policy for each role. In: metrics, and learner to learner. Out: names, learner to learner, the API server for
    those that report to it, and what the settings add."""
    return tuple(_policy(run, role, settings) for role in ROLES)


def _policy(run: EMPGRun, role: names.Role, settings: Settings) -> dict[str, Any]:
    port = metrics_port((run.spec.sampler if role == "sampler" else run.spec.learner).metrics_port)
    # Nodes choose ports of their own for NCCL, so all are open between learners.
    gang = [{"podSelector": {"matchLabels": names.selector(run.metadata.name, "learner")}}] if role == "learner" else []
    incoming: list[dict[str, Any]] = [{"ports": [{"protocol": "TCP", "port": port}]}] if port else []
    outgoing: list[dict[str, Any]] = [
        {"ports": [{"protocol": protocol, "port": port} for port in DNS_PORTS for protocol in ("UDP", "TCP")]}
    ]
    if gang:
        incoming.append({"from": gang})
        outgoing.append({"to": gang})
    if reports(run, role) and settings.api_server_cidrs:
        outgoing.append({"to": [{"ipBlock": {"cidr": cidr}} for cidr in settings.api_server_cidrs]})
    outgoing += settings.extra_egress
    spec: dict[str, Any] = {
        "podSelector": {"matchLabels": names.selector(run.metadata.name, role)},
        "policyTypes": ["Ingress", "Egress"],
        "egress": outgoing,
    }
    if incoming:
        spec["ingress"] = incoming
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(run, names.service_account(run.metadata.name, role), role),
        "spec": spec,
    }
