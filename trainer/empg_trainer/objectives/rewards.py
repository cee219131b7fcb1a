"""From graded rewards to returns."""

from __future__ import annotations

from torch import Tensor

from empg.objective import Objective, RewardMap
from empg_trainer.objectives.segments import Segments


def map_rewards(kind: RewardMap, rewards: Tensor) -> Tensor:
    """Rewards [N] after the reward map."""
    return 2 * rewards - 1 if kind == "plus-minus-one" else rewards


def returns(objective: Objective, rewards: Tensor, answers: Segments, kl: Tensor | None) -> Tensor:
    """What each answer, or each of its tokens, earned.

    Args:
        rewards: [N] mapped rewards, paid at the end of an answer.
        answers: the answer of each of the T response tokens.
        kl: [T] divergence from the reference per token; read if `objective.kl` is `reward`.

    Returns:
        [T] undiscounted sums of what comes at or after each token if `objective.token_level`, else [N] sums of whole
        answers.
    """
    if objective.kl != "reward":
        return rewards
    assert kl is not None, "objective.kl: reward needs the divergence of each token"
    cost = objective.kl_beta * kl
    total = answers.sum(cost)
    if not objective.token_level:
        return rewards - total
    through = cost.cumsum(0)
    before_answer = total.cumsum(0) - total
    before_token = through - cost - before_answer[answers.index]
    return (rewards - total)[answers.index] + before_token
