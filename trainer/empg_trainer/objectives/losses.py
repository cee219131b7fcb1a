"""The loss of one micro-batch."""

from __future__ import annotations

import torch
from torch import Tensor

from empg.objective import Objective
from empg_trainer.objectives.kl import reference_kl
from empg_trainer.objectives.policy import Terms, policy_loss


def token_loss(
    objective: Objective,
    logprobs: Tensor,
    *,
    old: Tensor | None = None,
    behaviour: Tensor | None = None,
    reference: Tensor | None = None,
    advantages: Tensor,
    entropy: Tensor | None = None,
    sequence_ids: Tensor,
    weights: Tensor,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The part of the loss that the response tokens of one micro-batch contribute, and its metrics.

    Summed over all micro-batches of all ranks this is the loss of the optimizer step. Tokens of weight 0 (padding,
    filtered answers) contribute nothing whatever their values are, NaN included.

    Args:
        logprobs: [n] of the policy being trained, with gradient.
        old: [n] of the policy before the first step, where `objective.needs_old`. A clipped ratio without it is taken
            to the current policy, which is the old one in the only step of a batch.
        behaviour: [n] as recorded by the sampler; needed for `old_logprobs: behaviour` and for `is_correction`,
            else it only adds metrics.
        reference: [n] of the reference model, for `kl: loss`.
        advantages: [n] any float type.
        entropy: [n] of the policy in nats; with gradient where `objective.needs_entropy`, else it only adds metrics.
        sequence_ids: [n] integers, equal for the tokens of one answer. With `ratio_level: sequence` all tokens of an
            answer must be in one micro-batch; they then share one advantage and one weight.
        weights: [n] as `aggregation_weights` gave them to the answers.

    Returns:
        The loss (a scalar of the type of `logprobs`), and detached scalars for `metrics.combine`.
    """
    active = weights != 0

    def cut(values: Tensor) -> Tensor:
        # A gradient of 0 times NaN is NaN, so excluded values go before anything is computed from them.
        return torch.where(active, values, 0.0).to(logprobs.dtype)

    logprobs, advantages, weights = cut(logprobs), cut(advantages), cut(weights)
    behaviour = None if behaviour is None else cut(behaviour)
    old_policy = _old_policy(objective, logprobs, None if old is None else cut(old), behaviour)
    metrics = {"tokens_sum": active.sum(), **_distances(logprobs.detach(), old_policy, behaviour)}

    terms = Terms(logprobs, old_policy, behaviour, advantages, weights, active)
    if objective.uses_clip and objective.ratio_level == "sequence":
        terms = terms.by_answer(sequence_ids)
    loss, policy_metrics = policy_loss(objective, terms)
    metrics |= policy_metrics

    if objective.kl == "loss":
        assert reference is not None, "objective.kl: loss needs the reference model's log-probs"
        divergence = reference_kl(objective.kl_estimator, logprobs, cut(reference))
        kl_loss = objective.kl_beta * (weights * divergence).sum()
        loss = loss + kl_loss
        metrics |= {"reference_kl_sum": divergence.detach().sum(), "kl_loss_sum": kl_loss.detach()}
    if entropy is not None:
        entropy = cut(entropy)
        metrics["entropy_sum"] = entropy.detach().sum()
    if objective.needs_entropy:
        assert entropy is not None, "objective.entropyCoef needs the entropy of each token"
        loss = loss - objective.entropy_coef * (weights * entropy).sum()
    return loss, metrics | {"loss_sum": loss.detach()}


def _old_policy(objective: Objective, logprobs: Tensor, old: Tensor | None, behaviour: Tensor | None) -> Tensor | None:
    """Log-probs that stand for the old policy; none where nobody gave any and no ratio asks for them."""
    if not objective.uses_clip:
        return old
    if objective.old_logprobs == "behaviour":
        assert behaviour is not None, "objective.oldLogprobs: behaviour needs the sampler's log-probs"
        return behaviour
    assert old is not None or objective.single_step, "more than one step per batch needs the old log-probs"
    return logprobs.detach() if old is None else old


def _distances(logprobs: Tensor, old: Tensor | None, behaviour: Tensor | None) -> dict[str, Tensor]:
    """How far the policy is from the one before the first step and from the sampler's, summed over tokens."""
    distances = {}
    if old is not None:
        distances["old_kl_sum"] = reference_kl("k3", old, logprobs).sum()
    if behaviour is not None:
        distances["behaviour_kl_sum"] = reference_kl("k3", behaviour, logprobs).sum()
        distances["behaviour_gap_sum"] = (behaviour - logprobs).abs().sum()
    return distances
