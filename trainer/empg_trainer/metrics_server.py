"""Prometheus endpoint of the learner: `empg_learner_*` in base units, from rank 0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge

from empg.cluster import endpoint

GAUGES = {
    "iteration": ("iteration", "Iteration of the newest figures."),
    "policy": ("policy_version", "Newest published policy version."),
    "reward_mean": ("reward_mean", "Mean reward of graded answers."),
    "accuracy": ("accuracy_ratio", "Share of graded answers that were correct."),
    "loss": ("loss", "Loss of the M-step."),
    "entropy": ("entropy_nats", "Mean entropy per token."),
    "kl_behaviour": ("kl_behaviour_nats", "Estimated KL divergence of the learner from the sampler, per token."),
    "ratio_min": ("importance_ratio_min", "Smallest probability ratio of a token, learner over sampler."),
    "ratio_mean": ("importance_ratio_mean", "Mean probability ratio of a token, learner over sampler."),
    "ratio_max": ("importance_ratio_max", "Largest probability ratio of a token, learner over sampler."),
    "filtered_share": ("filtered_ratio", "Share of graded answers that the objective's filters left out."),
    "logprob_mismatch": ("logprob_mismatch_nats", "Mean |sampler - learner| log-prob per token of the same policy."),
    "grad_norm": ("gradient_norm", "Global gradient norm before clipping."),
    "learning_rate": ("learning_rate", "Learning rate."),
    "tokens_per_second": ("response_tokens_per_second", "Response tokens per second of the whole iteration."),
    "response_length_mean": ("response_length_tokens", "Mean response length."),
    "truncated_share": ("truncated_ratio", "Share of answers that met the token limit."),
    "staleness_mean": ("staleness_mean", "Mean age of the sampling policy in versions, over tokens."),
    "staleness_max": ("staleness_max", "Largest age of the sampling policy in versions."),
    "eval_greedy": ("evaluation_accuracy_ratio", "Greedy accuracy of the newest evaluated policy."),
}
"""Key of the record: name and description of the gauge."""

COUNTERS = {
    "iterations": ("iterations", "Iterations made."),
    "tokens": ("response_tokens", "Response tokens sampled for the learner."),
    "void_units": ("void_units", "Units that were left out after their attempts failed."),
    "replayed": ("replayed_iterations", "Iterations repeated after a restart."),
    "diverged": ("diverged_replays", "Repeated iterations that gave other weights than the first time."),
}

PHASES = ("sampling", "sealing", "learning", "publishing", "state")


class LearnerMetrics:
    """Gauges and counters of one learner process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._gauges: dict[str, Gauge] = {}
        self._phase = Gauge(
            "empg_learner_phase_seconds",
            "Duration of a phase of the newest iteration.",
            ("phase",),
            registry=self.registry,
        )
        self._counters = {
            key: Counter(f"empg_learner_{name}", description, registry=self.registry)
            for key, (name, description) in COUNTERS.items()
        }

    def serve(self, port: int) -> None:
        """Answer on `port` of all addresses, in a thread; the learner is healthy as long as its process answers."""
        endpoint.serve(port, self.registry)

    def observe(self, figures: Mapping[str, Any], counts: Mapping[str, float] | None = None) -> None:
        """Take the figures of an iteration, or some newer ones of it; those without a value leave their gauge as it is.

        A gauge appears with its first value: after a restart no figure falls to 0 until the next iteration is made.
        `counts` is what this process adds to the counters: a replayed iteration was counted before.
        """
        for key, (name, description) in GAUGES.items():
            if figures.get(key) is not None:
                if key not in self._gauges:
                    self._gauges[key] = Gauge(f"empg_learner_{name}", description, registry=self.registry)
                self._gauges[key].set(figures[key])
        for phase in PHASES:
            if figures.get(f"seconds_{phase}") is not None:
                self._phase.labels(phase).set(figures[f"seconds_{phase}"])
        for key, count in (counts or {}).items():
            self._counters[key].inc(count)
