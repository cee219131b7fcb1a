"""Which answers the loss leaves out."""

from __future__ import annotations

import torch
from torch import Tensor

from empg.objective import Objective
from empg_trainer.objectives.segments import Segments


def zero_variance(rewards: Tensor, groups: Segments) -> Tensor:
    """[groups] whether all answers of a group have the same reward."""
    return groups.min(rewards) == groups.max(rewards)


def keep_by_reward(objective: Objective, rewards: Tensor, groups: Segments) -> Tensor:
    """[N] answers that no filter on rewards drops. These filters see rewards as graded, before the reward map."""
    dropped = torch.zeros(groups.count, dtype=torch.bool)
    if "zero-variance" in objective.filters:
        dropped |= zero_variance(rewards, groups)
    if "all-right" in objective.filters:
        dropped |= groups.min(rewards) >= objective.right_reward
    if "all-wrong" in objective.filters:
        dropped |= groups.max(rewards) <= objective.wrong_reward
    return ~dropped[groups.index]


def keep_by_advantage(objective: Objective, largest: Tensor) -> Tensor:
    """[N] answers that the filter on advantages keeps, given the largest |advantage| of each [N]."""
    if "small-advantage" not in objective.filters:
        return torch.ones_like(largest, dtype=torch.bool)
    return largest > objective.min_advantage
