"""Learning rate of an iteration. A pure function of the specification, so a live edit takes effect at once."""

from __future__ import annotations

import math

from empg.api.optimizer import OptimizerSpec


def learning_rate(spec: OptimizerSpec, iteration: int, iterations: int) -> float:
    """Learning rate for all optimizer steps of `iteration` (0 … `iterations` − 1).

    Over a warm-up of w iterations the rate rises linearly, from 1 / (w + 1) of the peak in iteration 0; it reaches the
    peak in the iteration after. Then it stays (`constant`) or falls to `min_learning_rate_ratio` of the peak in the
    last iteration.
    """
    if iteration < spec.warmup_iterations:
        return spec.learning_rate * (iteration + 1) / (spec.warmup_iterations + 1)
    if spec.schedule == "constant":
        return spec.learning_rate
    span = iterations - 1 - spec.warmup_iterations
    done = min(1.0, (iteration - spec.warmup_iterations) / span) if span > 0 else 0.0
    share = 1.0 - done if spec.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
    lowest = spec.min_learning_rate_ratio
    return spec.learning_rate * (lowest + (1.0 - lowest) * share)
