"""Prometheus metrics of a sampler, and its endpoint. vLLM's own (`vllm:…`) are on the same endpoint."""

from __future__ import annotations

from prometheus_client import REGISTRY, Counter, Gauge, Histogram

from empg.cluster import endpoint
from empg_sampler.health import Health

POLICY_VERSION = Gauge("empg_sampler_policy_version", "Policy version that the engine serves.")
REQUESTS_RUNNING = Gauge("empg_sampler_requests_running", "Answers that are being generated.")
GRADES_PENDING = Gauge("empg_sampler_grades_pending", "Answers that wait for their grade.")
UNITS = Counter("empg_sampler_units", "Units by how they ended here.", ["kind", "outcome"])
ANSWERS = Counter("empg_sampler_answers", "Graded answers by verdict.", ["verdict"])
TOKENS = Counter("empg_sampler_tokens", "Tokens of finished answers.")
RETRIES = Counter("empg_sampler_answer_retries", "Answers that the engine gave up and that were asked for again.")
REFUSED_POLICIES = Counter("empg_sampler_refused_policies", "Published policies that were not fit to be served.")
SWAP_SECONDS = Histogram(
    "empg_sampler_swap_seconds",
    "Time to load a policy, in which nothing is generated.",
    buckets=(0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)


def serve(port: int, health: Health) -> None:
    """Answer `/metrics` and the kubelet's probes on all interfaces; OSError if the port is taken."""
    endpoint.serve(port, REGISTRY, alive=health.alive, ready=health.ready)
