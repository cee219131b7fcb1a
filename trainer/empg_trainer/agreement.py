"""How the sampler's log-probs compare with the learner's for the same tokens."""

from __future__ import annotations

import torch
from torch import Tensor


def agreement(learner: Tensor, sampler: Tensor, own: Tensor, active: Tensor) -> dict[str, Tensor]:
    """Sums and extremes that `empg_trainer.objectives.combine` adds up; `summarize_agreement` divides them.

    Args:
        learner: [n] log-probs in nats under the policy in training.
        sampler: [n] as recorded when the tokens were sampled.
        own: [n] bool: sampled with the very policy version that is being trained.
        active: [n] bool: False for padding.
    """
    difference = (sampler - learner).double()
    ratio = torch.exp(-difference.clamp(-20, 20))
    mine = own & active
    return {
        "tokens_sum": active.sum(),
        "kl_sum": difference.where(active, 0.0).sum(),
        "ratio_sum": ratio.where(active, 0.0).sum(),
        "ratio_min": ratio.where(active, torch.inf).amin(),
        "ratio_max": ratio.where(active, -torch.inf).amax(),
        "own_tokens_sum": mine.sum(),
        "own_gap_sum": difference.abs().where(mine, 0.0).sum(),
    }


def summarize_agreement(totals: dict[str, float]) -> dict[str, float | None]:
    """Figures for the record of an iteration; None for a mean over nothing.

    `kl_behaviour` estimates KL(sampler ‖ learner) in nats per token, `ratio_*` are probabilities under the learner
    over those under the sampler, and `logprob_mismatch` is the mean |difference| for tokens of the same version,
    which would be 0 if both engines computed alike.
    """
    tokens, own = totals.get("tokens_sum", 0.0), totals.get("own_tokens_sum", 0.0)
    return {
        "kl_behaviour": totals["kl_sum"] / tokens if tokens else None,
        "ratio_min": totals["ratio_min"] if tokens else None,
        "ratio_mean": totals["ratio_sum"] / tokens if tokens else None,
        "ratio_max": totals["ratio_max"] if tokens else None,
        "logprob_mismatch": totals["own_gap_sum"] / own if own else None,
    }
