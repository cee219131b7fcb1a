"""`spec.optimizer`: AdamW and its schedule."""

from __future__ import annotations

from typing import Literal

from empg.api.base import Spec, field


class OptimizerSpec(Spec):
    """AdamW with a warm-up and a schedule; all optimizer steps of an iteration have the same rate."""

    learning_rate: float = field(1e-6, change="live", gt=0, le=1)
    """Peak learning rate."""
    schedule: Literal["constant", "linear", "cosine"] = field("constant", change="live")
    """Shape after the warm-up, down to `minLearningRateRatio` × `learningRate` at the last iteration."""
    warmup_iterations: int = field(0, change="live", ge=0, le=1_000_000)
    """Iterations below the peak rate at the start: of w, iteration i (from 0) has (i + 1) / (w + 1) of it."""
    min_learning_rate_ratio: float = field(0.0, change="live", ge=0, le=1)
    """Final share of the peak rate for `linear` and `cosine`."""
    weight_decay: float = field(0.0, change="live", ge=0, le=10)
    """Decoupled weight decay."""
    beta1: float = field(0.9, change="next-attempt", ge=0, lt=1)
    """Decay of the first moment."""
    beta2: float = field(0.95, change="next-attempt", ge=0, lt=1)
    """Decay of the second moment."""
    epsilon: float = field(1e-8, change="next-attempt", gt=0, le=1)
    """Term added to the root of the second moment."""
    gradient_clip: float = field(1.0, change="next-attempt", ge=0, le=1e6)
    """Largest global gradient norm. 0: no clipping."""
