"""Advantages: baseline, scale and squash over the whole batch of an iteration."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from empg.objective import Objective
from empg_trainer.objectives.filters import keep_by_advantage, keep_by_reward, zero_variance
from empg_trainer.objectives.rewards import map_rewards, returns
from empg_trainer.objectives.segments import Segments


@dataclass(frozen=True)
class Advantages:
    """Advantages of N answers with T response tokens in all, float64 on the CPU."""

    values: Tensor
    """[N], or [T] (answer after answer) where a divergence in the reward makes them differ over the tokens."""
    offsets: Tensor | None
    """[N + 1] where each answer begins in `values` if those are per token."""
    lengths: Tensor
    """[N] response tokens per answer."""
    keep: Tensor
    """[N] bool: answers that enter the loss. The others have advantage 0."""
    stats: dict[str, float]
    """Counts and moments for the record of the iteration."""

    def of(self, answer: int) -> Tensor:
        """Advantages of one answer's response tokens [lengths[answer]]."""
        if self.offsets is None:
            return self.values[answer].expand(int(self.lengths[answer]))
        return self.values[self.offsets[answer] : self.offsets[answer + 1]]


def advantages(
    objective: Objective, rewards: Tensor, groups: Tensor, lengths: Tensor, kl: Tensor | None = None
) -> Advantages:
    """Advantages of all answers of an iteration, over all ranks.

    Answers that nobody could grade are left out by the caller. A group that has one answer left has advantage 0 with
    every baseline of the group: there is nothing to compare it with.

    Args:
        rewards: [N] float64 as graded.
        groups: [N] int64, equal for the answers to one prompt.
        lengths: [N] int64 response tokens, 0 allowed.
        kl: [T] float64 log p_old − log p_ref of the response tokens, answer after answer; for `objective.kl: reward`.

    Raises:
        ValueError: if a reward or a divergence is not finite.
    """
    assert rewards.shape == groups.shape == lengths.shape, "one reward, group and length per answer"
    rewards = rewards.double()
    if not rewards.isfinite().all():
        raise ValueError("a reward is not finite; leave answers without a grade out of the batch")
    all_groups = Segments.of_labels(groups)
    keep = keep_by_reward(objective, rewards, all_groups)
    answers = Segments.of_lengths(lengths)
    if kl is not None:
        assert kl.shape == answers.index.shape, "one divergence per response token"
        kl = kl.double()[keep[answers.index]]
        if not kl.isfinite().all():
            raise ValueError("the divergence from the reference is not finite; check both models' log-probs")

    kept_answers = Segments.of_lengths(lengths[keep])
    earned = returns(objective, map_rewards(objective.reward_map, rewards[keep]), kept_answers, kl)
    tokens = torch.ones_like(earned) if objective.token_level else lengths[keep].double()
    kept_values = _squashed(objective, _scaled(objective, earned, tokens, Segments.of_labels(groups[keep])))
    # Statistics over tokens say nothing about an answer without any.
    kept_values = kept_values.where(tokens > 0, 0.0)

    if objective.token_level:
        where = keep[answers.index]
        values = torch.zeros(len(where), dtype=torch.float64).masked_scatter(where, kept_values)
        largest = answers.max(values.abs())
    else:
        where = keep
        values = torch.zeros(len(where), dtype=torch.float64).masked_scatter(where, kept_values)
        largest = values.abs()
    keep = keep & keep_by_advantage(objective, largest)
    values = values.where(keep[answers.index] if objective.token_level else keep, 0.0)
    return Advantages(
        values=values,
        offsets=torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]) if objective.token_level else None,
        lengths=lengths,
        keep=keep,
        stats={
            "answers": float(len(rewards)),
            "answers_filtered": float((~keep).sum()),
            "groups": float(all_groups.count),
            "groups_zero_variance": float(zero_variance(rewards, all_groups).sum()),
            **_moments("reward", rewards),
            **_moments("advantage", kept_values),
        },
    )


def _scaled(objective: Objective, earned: Tensor, tokens: Tensor, groups: Segments) -> Tensor:
    """Returns minus their baseline, divided by their scale. `tokens` is how many tokens each value stands for."""
    batch = Segments.whole(earned)
    match objective.baseline:
        case "none":
            difference = earned
        case "group-mean":
            difference = groups.centred(earned)
        case "leave-one-out":
            sizes = groups.sum(torch.ones_like(earned))
            difference = groups.centred(earned) * (sizes / (sizes - 1).clamp(min=1))[groups.index]
        case "batch-mean":
            difference = batch.centred(earned)
        case "token-mean":
            difference = batch.centred(earned, tokens)
        case "group-mean-then-token-mean":
            difference = batch.centred(groups.centred(earned), tokens)
    epsilon = objective.scale_epsilon
    match objective.scale:
        case "none":
            return difference
        case "group-std":
            return difference / (groups.variance(earned).sqrt() + epsilon)[groups.index]
        case "batch-std":
            return difference / (batch.variance(earned).sqrt() + epsilon)
        case "token-std":
            return difference / (batch.variance(difference, tokens) + epsilon).sqrt()


def _squashed(objective: Objective, values: Tensor) -> Tensor:
    match objective.squash:
        case "none":
            return values
        case "tanh-half":
            return torch.tanh(values / 2)
        case "sigmoid":
            return torch.sigmoid(values)
        case "sigmoid-centred":
            return Segments.whole(values).centred(torch.sigmoid(values))
        case "positive-part":
            return values.clamp(min=0)


def _moments(name: str, values: Tensor) -> dict[str, float]:
    """Mean, standard deviation and range; nothing for no values."""
    if len(values) == 0:
        return {}
    return {
        f"{name}_mean": float(values.mean()),
        f"{name}_std": float(values.std(correction=0)),
        f"{name}_min": float(values.min()),
        f"{name}_max": float(values.max()),
    }
