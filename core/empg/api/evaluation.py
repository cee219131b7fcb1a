"""`spec.evaluation`: held-out problems during the run."""

from __future__ import annotations

from empg.api.base import Spec, field


class EvaluationSpec(Spec):
    """Greedy pass@1, and avg@k where asked for, of policy 0, of every nth policy and of the last one."""

    every: int = field(10, change="live", ge=0, le=1_000_000)
    """Iterations between evaluations. 0: only the first and the last policy."""
    prompts: int = field(200, change="immutable", ge=0, le=1_000_000)
    """Held-out problems; of more that there are, so many are chosen by their texts. 0: no evaluation."""
    samples: int = field(0, change="live", ge=0, le=1024)
    """Answers per problem for avg@k. 0: greedy only."""
    temperature: float = field(1.0, change="live", ge=0.01, le=2)
    """Sampling temperature for avg@k."""
    prompts_per_unit: int = field(64, change="live", ge=1, le=65536)
    """Problems in one unit of work."""
    deadline_seconds: float = field(1800.0, change="live", gt=0, le=10_000_000)
    """An evaluation that is not complete this long after the run's last iteration is recorded as missing."""
