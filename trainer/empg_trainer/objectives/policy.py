"""The policy term of the loss: surrogate, level of its ratios, and correction for the sampler's policy."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from empg.objective import Objective
from empg_trainer.objectives.segments import Segments
from empg_trainer.objectives.surrogates import bounded_ratio, clipped_losses, logp_losses


@dataclass(frozen=True)
class Terms:
    """What the policy term is a weighted sum over: tokens, or answers where ratios are of whole answers."""

    logprobs: Tensor
    old: Tensor | None
    behaviour: Tensor | None
    advantages: Tensor
    weights: Tensor
    active: Tensor
    """bool: False for padding and filtered answers, whose other values are 0."""

    def by_answer(self, sequence_ids: Tensor) -> Terms:
        """One term per answer: log-probs are summed, the advantage and weight that its tokens share stay.

        At ratio 1 the gradient is the one of the tokens' terms, for every aggregation.
        """
        answers = Segments.of_labels(sequence_ids)
        return replace(
            self,
            logprobs=answers.sum(self.logprobs),
            old=None if self.old is None else answers.sum(self.old),
            behaviour=None if self.behaviour is None else answers.sum(self.behaviour),
            advantages=answers.any_of(self.advantages),
            weights=answers.any_of(self.weights),
            active=answers.any_of(self.active),
        )


def policy_loss(objective: Objective, terms: Terms) -> tuple[Tensor, dict[str, Tensor]]:
    """The policy term and its metrics, from the terms at the level that the objective asks for.

    `terms.old` is read by the clipped ratio alone. There the correction leads from the sampler to the old policy and
    the ratio on to the current one; without a ratio the correction leads to the current policy at once.
    """
    metrics: dict[str, Tensor] = {}
    if objective.uses_clip:
        assert terms.old is not None
        clipped = clipped_losses(
            terms.logprobs - terms.old, terms.advantages, objective.clip_low, objective.clip_high, objective.dual_clip
        )
        losses, corrected = clipped.losses, terms.old
        metrics |= {
            "ratios_sum": terms.active.sum(),
            "ratio_sum": torch.where(terms.active, clipped.ratio, 0.0).sum(),
            "ratio_min": _least(torch.where(terms.active, clipped.ratio, torch.inf)),
            "ratio_max": -_least(torch.where(terms.active, -clipped.ratio, torch.inf)),
            "clipped_sum": clipped.clipped.sum(),
            "dual_clipped_sum": clipped.dual_clipped.sum(),
        }
    else:
        losses, corrected = logp_losses(terms.logprobs, terms.advantages), terms.logprobs.detach()
    if objective.is_correction != "none":
        assert terms.behaviour is not None, "objective.isCorrection needs the sampler's log-probs"
        ratio = bounded_ratio(corrected - terms.behaviour)
        losses = losses * ratio.clamp(max=objective.is_cap)
        metrics |= {
            "is_ratios_sum": terms.active.sum(),
            "is_ratio_sum": torch.where(terms.active, ratio, 0.0).sum(),
            "is_capped_sum": (terms.active & (ratio > objective.is_cap)).sum(),
        }
    loss = (terms.weights * losses).sum()
    return loss, metrics | {"policy_loss_sum": loss.detach()}


def _least(values: Tensor) -> Tensor:
    """The least value; infinity for none."""
    return values.amin() if len(values) else values.new_tensor(torch.inf)
