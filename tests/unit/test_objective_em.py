"""Exact EM on a bandit: the objective with raw rewards is the M-step of the EM that climbs J = E[R]."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from empg.objective import PRESETS, Objective
from empg_trainer.objectives import advantages, token_loss

REWARDS = torch.tensor([1.0, 0.0, 0.2, 0.5], dtype=torch.float64)
EXPECTED_RETURNS = [0.425, 0.758824, 0.878295, 0.939188, 0.96943, 0.984605]
"""J of the uniform policy and after each exact EM step."""

ARMS = torch.arange(4)
ONE = torch.ones(4, dtype=torch.int64)


def surrogate(objective: Objective, logits: Tensor, sampled_from: Tensor) -> Tensor:
    """The loss of infinitely many answers of one token, sampled from a policy over the arms."""
    found = advantages(objective, REWARDS, torch.zeros(4, dtype=torch.int64), ONE)
    loss, _ = token_loss(
        objective, logits.log_softmax(0), advantages=found.values, sequence_ids=ARMS, weights=sampled_from
    )
    return loss


def expected_return(logits: Tensor) -> Tensor:
    return (logits.softmax(0) * REWARDS).sum()


def test_maximising_the_surrogate_is_the_m_step() -> None:
    policy = torch.full((4,), 0.25, dtype=torch.float64)
    returns = [float(policy @ REWARDS)]
    for _ in range(5):
        sampled_from = policy
        policy = policy * REWARDS / (policy @ REWARDS)
        returns.append(float(policy @ REWARDS))
        # The surrogate is convex in the logits: a zero gradient is the M-step. The arm without reward is at −40.
        logits = policy.clamp(min=1e-18).log().requires_grad_()
        (gradient,) = torch.autograd.grad(surrogate(PRESETS["empg-raw"], logits, sampled_from), logits)
        assert gradient.abs().max() < 1e-12
    assert returns == pytest.approx(EXPECTED_RETURNS, abs=1e-6)
    assert returns == sorted(returns)


def test_gradient_at_the_sampling_policy_is_that_of_the_expected_return() -> None:
    logits = torch.tensor([0.3, -0.2, 0.1, 0.7], dtype=torch.float64, requires_grad=True)
    policy = logits.detach().softmax(0)
    mean = expected_return(logits)
    (ascent,) = torch.autograd.grad(mean, logits)
    (gradient,) = torch.autograd.grad(surrogate(PRESETS["empg-raw"], logits, policy), logits)
    torch.testing.assert_close(-gradient, ascent)
    # Any baseline leaves it unchanged on policy.
    for baseline in ("group-mean", "batch-mean", "token-mean"):
        (shifted,) = torch.autograd.grad(surrogate(Objective(baseline=baseline), logits, policy), logits)
        torch.testing.assert_close(-shifted, ascent)
    # The gradient of the E-step's target is that of log J.
    target = policy * REWARDS / mean.detach()
    (likelihood,) = torch.autograd.grad((target * logits.log_softmax(0)).sum(), logits)
    torch.testing.assert_close(likelihood, ascent / mean.detach())


def test_a_baseline_pushes_away_from_a_stale_policy() -> None:
    logits = torch.tensor([0.3, -0.2, 0.1, 0.7], dtype=torch.float64, requires_grad=True)
    stale = torch.full((4,), 0.25, dtype=torch.float64)
    (raw,) = torch.autograd.grad(surrogate(PRESETS["empg-raw"], logits, stale), logits)
    (shifted,) = torch.autograd.grad(surrogate(Objective(baseline="batch-mean"), logits, stale), logits)
    divergence = (stale * (stale.log() - logits.log_softmax(0))).sum()
    (away,) = torch.autograd.grad(divergence, logits)
    torch.testing.assert_close(-shifted, -raw + REWARDS.mean() * away)
