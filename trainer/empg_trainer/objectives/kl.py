"""Estimators of the divergence from the reference model."""

from __future__ import annotations

import torch
from torch import Tensor

from empg.objective import KLEstimator


def reference_kl(estimator: KLEstimator, logprobs: Tensor, reference: Tensor) -> Tensor:
    """Estimate of KL(policy ‖ reference) per token in nats, from the log-probs of tokens that the policy sampled.

    k3 is cut at ±10, as in verl: one token far off would otherwise be the whole loss. Its exponent is cut at ±20, since
    the gradient of an infinite value is NaN even where the cut makes it 0.
    """
    difference = logprobs - reference
    match estimator:
        case "k1":
            return difference
        case "k2":
            return difference**2 / 2
        case "k3":
            inverse = (-difference).clamp(-20, 20)
            return (torch.exp(inverse) - inverse - 1).clamp(-10, 10)
