"""What whoever runs the operator decides; the chart's values become these, as command line flags."""

from __future__ import annotations

import ipaddress
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from empg import __version__
from empg_operator import names


class Settings(BaseModel):
    """Settings of one operator process."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    sampler_image: str = Field(f"empg/sampler:{__version__}", min_length=1)
    """Image of sampler pods of runs that name none."""
    learner_image: str = Field(f"empg/trainer:{__version__}", min_length=1)
    """Image of learner pods of runs that name none."""
    image_pull_policy: str = "IfNotPresent"
    image_pull_secrets: tuple[str, ...] = ()
    """Names of pull secrets in the namespaces of runs."""
    namespaces: tuple[str, ...] = ()
    """Namespaces to watch. Empty: all."""
    workers: int = Field(8, ge=1, le=256)
    """Runs that are reconciled at a time."""
    resync_seconds: float = Field(300.0, gt=0)
    """Time between two lists of the children that are not watched."""
    metrics_port: int = Field(8080, ge=0, le=65535)
    """Port of `/metrics`, `/healthz` and `/readyz`. 0: none."""
    network_policies: bool = False
    """Whether to make a NetworkPolicy for every run."""
    extra_egress: tuple[dict[str, JsonValue], ...] = ()
    """Further egress rules of those policies."""
    api_server_cidrs: tuple[str, ...] = ()
    """Addresses of the API server, for those policies."""
    pod_monitor_labels: dict[str, str] = {}
    """Labels of the PodMonitors, as the cluster's Prometheus selects them."""
    pod_monitors: bool = True
    """Whether to make a PodMonitor for every run where the cluster has that kind."""
    leader_election: bool = False
    """Whether replicas of the operator elect the one that works, by a Lease."""
    lease_namespace: str = "default"
    """Namespace of that Lease."""
    lease_name: str = Field(names.FIELD_MANAGER, min_length=1)
    """Its name. Operators of one name stand by for each other, so those of different runs need different ones."""

    @field_validator("api_server_cidrs")
    @classmethod
    def _are_networks(cls, cidrs: tuple[str, ...]) -> tuple[str, ...]:
        for cidr in cidrs:
            try:
                ipaddress.ip_network(cidr, strict=False)
            except ValueError:
                raise ValueError(f"{cidr!r} is no network; write it as 10.0.0.1/32 or fd00::1/128") from None
            if "/" not in cidr:
                raise ValueError(f"{cidr!r} is an address; write it as a network, {ipaddress.ip_network(cidr)}")
        return cidrs

    @model_validator(mode="after")
    def _policies_let_learners_report(self) -> Self:
        if self.network_policies and not self.api_server_cidrs and not self.extra_egress:
            raise ValueError(
                "--network-policies needs --api-server-cidrs, the addresses that `kubectl get endpointslices "
                "-n default` shows (10.0.0.1/32), or an --extra-egress rule that leads there: learners could not "
                "report how far they are"
            )
        return self
