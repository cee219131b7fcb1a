"""What is minimised in place of the expected reward, per token or per answer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LOG_RATIO_BOUND = 20.0
"""Log-ratios are cut here before `exp`, as in verl, so that no ratio is infinite."""


@dataclass(frozen=True)
class Clipped:
    """Losses of the clipped ratio, and what the clipping did. All of one shape."""

    losses: Tensor
    ratio: Tensor
    clipped: Tensor
    """bool: the clip at 1 ± ε gave the loss."""
    dual_clipped: Tensor
    """bool: the dual clip gave the loss."""


def logp_losses(logprobs: Tensor, advantages: Tensor) -> Tensor:
    """−A · log p: the policy gradient without a ratio, and the M-step of EM where A is a reward."""
    return -advantages * logprobs


def clipped_losses(log_ratio: Tensor, advantages: Tensor, low: float, high: float, dual: float) -> Clipped:
    """−min(ρA, clip(ρ, 1 − low, 1 + high) A), at most −dual · A where A < 0 and dual is not 0."""
    ratio = bounded_ratio(log_ratio)
    plain = -advantages * ratio
    cut = -advantages * ratio.clamp(1 - low, 1 + high)
    losses = torch.maximum(plain, cut)
    bound = -advantages * dual
    dual_clipped = (advantages < 0) & (bound < losses) if dual else torch.zeros_like(losses, dtype=torch.bool)
    return Clipped(
        losses=torch.where(dual_clipped, bound, losses),
        ratio=ratio.detach(),
        clipped=cut > plain,
        dual_clipped=dual_clipped,
    )


def bounded_ratio(log_ratio: Tensor) -> Tensor:
    """exp of a log-ratio that is cut at ± `LOG_RATIO_BOUND`."""
    return log_ratio.clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND).exp()
