"""`spec.restarts` and `spec.deadlines`: how often a run is tried again in a cluster, and how long it may take."""

from __future__ import annotations

from empg.api.base import Spec, field
from empg.api.rule import Rule


class RestartsSpec(Spec):
    """Attempts of the learner after crashes. Evictions, preemptions and suspensions cost nothing."""

    limit: int = field(10, change="live", ge=0, le=10_000)
    """Crashes after which the run has failed."""
    backoff_seconds: float = field(10.0, change="live", ge=0, le=3600)
    """Wait before the attempt after a crash; doubles with every further crash that made no progress."""
    max_backoff_seconds: float = field(300.0, change="live", ge=0, le=86_400)
    """Longest wait between two attempts."""

    rules = (
        Rule(
            "backoffSeconds",
            "restarts.backoffSeconds ({self.backoff_seconds:g}) must not be above restarts.maxBackoffSeconds "
            "({self.max_backoff_seconds:g})",
            cel="self.backoffSeconds <= self.maxBackoffSeconds",
            holds=lambda restarts: restarts.backoff_seconds <= restarts.max_backoff_seconds,
        ),
    )


class DeadlinesSpec(Spec):
    """Longest times in seconds, by the operator's clock. A run that passes one has failed, and says which. Absent:
    no limit. Time in suspension or in a queue does not count; samplers are in a queue while it has admitted none."""

    pending_seconds: float | None = field(86_400.0, change="live", gt=0, le=100_000_000)
    """Until all pods of the learner and one sampler run. Waits add up over attempts until the learner runs beside a
    sampler that is ready, or an iteration is finished. A sampler that has crashed and is not ready again does not
    count as running."""
    hold_seconds: float | None = field(900.0, change="live", gt=0, le=100_000_000)
    """A run that has had only a part of its learner, or only a learner that waits, for so long gives all back and tries
    again later, so that two half-started runs do not wait for each other. The pause doubles each time, up to an hour,
    until an iteration is finished. Samplers count as for `pendingSeconds`."""
    sampling_seconds: float | None = field(None, change="live", gt=0, le=100_000_000)
    """One E-step. The time of all attempts adds up; what lies between them, or is spent waiting for pods, does not
    count."""
    learning_seconds: float | None = field(None, change="live", gt=0, le=100_000_000)
    """One M-step, publication included. Attempts add up as for `samplingSeconds`."""
    rolling_seconds: float | None = field(None, change="live", gt=0, le=100_000_000)
    """Until all samplers hold a new policy."""
    run_seconds: float | None = field(None, change="live", gt=0, le=100_000_000)
    """The whole run."""
