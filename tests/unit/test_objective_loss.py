"""The loss of an optimizer step: identities, sharding, excluded tokens, clips and corrections, derivatives."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from golden_batch import (
    BEHAVIOUR,
    ENTROPY,
    GROUPS,
    LENGTHS,
    LOGPROBS,
    LONGEST,
    OLD,
    REFERENCE,
    REWARDS,
    SEQUENCES,
    N,
    estimate,
    loss_and_metrics,
)
from torch import Tensor

from empg.objective import PRESETS, Aggregate, Objective
from empg_trainer.objectives import (
    Advantages,
    advantages,
    aggregation_weights,
    combine,
    reduction,
    reference_kl,
    summarize,
    token_loss,
)

AGGREGATES: tuple[Aggregate, ...] = ("token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "constant")
VARIANTS: dict[str, Objective] = {
    **PRESETS,
    "sequence-and-correction": replace(PRESETS["rloo"], is_correction="truncated", is_cap=1.1),
    "token-and-correction": replace(PRESETS["grpo"], is_correction="truncated", is_cap=0.9, dual_clip=1.2),
    "everything": replace(
        PRESETS["empg"],
        kl="loss",
        is_correction="truncated",
        aggregate="constant",
        filters=("all-wrong",),
        denominator="kept",
    ),
}


def micro_batch_loss(
    objective: Objective, logprobs: Tensor, found: Advantages, weights: Tensor, rows: list[int]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of some answers of the golden batch."""
    starts = LENGTHS.cumsum(0) - LENGTHS
    where = torch.cat([torch.arange(int(starts[row]), int(starts[row] + LENGTHS[row])) for row in rows])
    return token_loss(
        objective,
        logprobs[where],
        old=OLD[where],
        behaviour=BEHAVIOUR[where],
        reference=REFERENCE[where],
        advantages=torch.cat([found.of(row) for row in rows]),
        entropy=ENTROPY[where],
        sequence_ids=SEQUENCES[where],
        weights=weights[SEQUENCES[where]],
    )


@pytest.mark.parametrize("name", list(VARIANTS))
@pytest.mark.parametrize("size", [1, 2, 4, 12])
@pytest.mark.parametrize("ranks", [1, 4])
def test_micro_batches_and_ranks_change_nothing(name: str, size: int, ranks: int) -> None:
    objective = VARIANTS[name]
    logprobs = LOGPROBS.clone().requires_grad_()
    expected, metrics = loss_and_metrics(objective, logprobs)
    (expected_gradient,) = torch.autograd.grad(expected, logprobs)

    found = estimate(objective)
    weights = aggregation_weights(objective, LENGTHS, found.keep, LONGEST)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(size)).tolist()
    shards = [order[rank::ranks] for rank in range(ranks)]
    parts = [
        micro_batch_loss(objective, logprobs, found, weights, shard[start : start + size])
        for shard in shards
        for start in range(0, len(shard), size)
    ]
    total = torch.stack([loss for loss, _ in parts]).sum()
    (gradient,) = torch.autograd.grad(total, logprobs)
    torch.testing.assert_close(total, expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-10)
    assert summarize(combine(part for _, part in parts)) == pytest.approx(summarize(metrics), abs=1e-10)


@pytest.mark.parametrize("name", list(VARIANTS))
@pytest.mark.parametrize("poison", [math.nan, 1e9, -1e9, math.inf])
def test_tokens_of_weight_zero_contribute_nothing(name: str, poison: float) -> None:
    objective = VARIANTS[name]
    logprobs = LOGPROBS.clone().requires_grad_()
    expected, metrics = loss_and_metrics(objective, logprobs)
    (expected_gradient,) = torch.autograd.grad(expected, logprobs)

    found = estimate(objective)
    weights = aggregation_weights(objective, LENGTHS, found.keep, LONGEST)[SEQUENCES]

    def padded(values: Tensor) -> Tensor:
        return torch.cat([values.new_tensor([poison]), values, values.new_tensor([poison, poison])])

    long = padded(LOGPROBS).requires_grad_()
    loss, padded_metrics = token_loss(
        objective,
        long,
        old=padded(OLD),
        behaviour=padded(BEHAVIOUR),
        reference=padded(REFERENCE),
        advantages=padded(torch.cat([found.of(row) for row in range(N)])),
        entropy=padded(ENTROPY),
        sequence_ids=torch.cat([torch.tensor([-1]), SEQUENCES, torch.tensor([-1, 99])]),
        weights=torch.cat([torch.zeros(1), weights, torch.zeros(2)]),
    )
    (gradient,) = torch.autograd.grad(loss, long)
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(gradient[1:-2], expected_gradient, rtol=0, atol=1e-12)
    assert gradient[[0, -2, -1]].tolist() == [0.0, 0.0, 0.0]
    assert summarize(padded_metrics) == pytest.approx(summarize(metrics), abs=1e-10)


@pytest.mark.parametrize("aggregate", AGGREGATES)
@pytest.mark.parametrize("name", list(PRESETS))
def test_on_policy_the_clipped_ratio_has_the_gradient_of_logp(name: str, aggregate: Aggregate) -> None:
    plain = replace(PRESETS[name], surrogate="logp", aggregate=aggregate, kl="none", epochs=1, minibatches=1)
    logprobs = LOGPROBS.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss_and_metrics(plain, logprobs)[0], logprobs)
    assert expected.abs().max() > 0
    for level in ("token", "sequence"):
        clipped = replace(plain, surrogate="ratio-clip", ratio_level=level, dual_clip=3.0)
        # Old log-probs that are not given are those of the only step's own forward pass.
        for old in (LOGPROBS, None):
            loss, metrics = loss_and_metrics(clipped, logprobs, old)
            (gradient,) = torch.autograd.grad(loss, logprobs)
            torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-12)
            assert metrics["clipped_sum"] == 0
            assert metrics["old_kl_sum"] == 0


@pytest.mark.parametrize("name", ["empg", "empg-paper", "grpo", "dr-grpo", "rloo", "reinforce++", "ppo-clip"])
@pytest.mark.parametrize("filtered", [False, True])
def test_equal_rewards_teach_nothing(name: str, filtered: bool) -> None:
    objective = replace(
        PRESETS[name], kl="none", entropy_coef=0.0, filters=("zero-variance",) if filtered else (), denominator="kept"
    )
    found = advantages(objective, torch.full((N,), 0.3), GROUPS, LENGTHS)
    assert found.keep.any() != filtered
    assert found.stats["groups_zero_variance"] == 3
    weights = aggregation_weights(objective, LENGTHS, found.keep, LONGEST)
    assert weights.isfinite().all()
    logprobs = LOGPROBS.clone().requires_grad_()
    loss, metrics = micro_batch_loss(objective, logprobs, found, weights, list(range(N)))
    (gradient,) = torch.autograd.grad(loss, logprobs)
    assert loss.item() == 0
    assert gradient.tolist() == [0.0] * len(LOGPROBS)
    assert all(value == value for value in summarize(metrics).values())


@pytest.mark.parametrize("name", list(VARIANTS))
def test_a_micro_batch_without_tokens(name: str) -> None:
    objective, none = VARIANTS[name], torch.zeros(0, requires_grad=True)
    loss, metrics = token_loss(
        objective,
        none,
        old=none.detach(),
        behaviour=none.detach(),
        reference=none.detach(),
        advantages=none.detach(),
        entropy=none.detach(),
        sequence_ids=torch.zeros(0, dtype=torch.int64),
        weights=none.detach(),
    )
    loss.backward()
    assert loss.item() == 0
    assert summarize(metrics)["tokens"] == 0
    _, full = loss_and_metrics(objective)
    assert metrics.keys() == full.keys()
    assert summarize(combine([metrics, full])) == pytest.approx(summarize(full))


def test_aggregation_weights() -> None:
    lengths, keep = torch.tensor([4, 0, 1, 5]), torch.tensor([True, True, True, False])
    expected: dict[tuple[Aggregate, str], list[float]] = {
        ("token-mean", "all"): [1 / 10, 0, 1 / 10, 0],
        ("token-mean", "kept"): [1 / 5, 0, 1 / 5, 0],
        ("seq-mean-token-mean", "all"): [1 / 12, 0, 1 / 3, 0],
        ("seq-mean-token-mean", "kept"): [1 / 8, 0, 1 / 2, 0],
        ("seq-mean-token-sum", "all"): [1 / 3, 0, 1 / 3, 0],
        ("seq-mean-token-sum", "kept"): [1 / 2, 0, 1 / 2, 0],
        ("constant", "all"): [1 / 24, 0, 1 / 24, 0],
        ("constant", "kept"): [1 / 16, 0, 1 / 16, 0],
    }
    for (aggregate, denominator), weights in expected.items():
        objective = replace(PRESETS["raft"], aggregate=aggregate, denominator=denominator)
        assert aggregation_weights(objective, lengths, keep, max_tokens=8).tolist() == pytest.approx(weights)


def one_token(objective: Objective, logprob: float, advantage: float, **others: float) -> tuple[float, float, dict]:
    """Loss, its derivative and the summary of a single token of weight 1."""
    value = torch.tensor([logprob], dtype=torch.float64, requires_grad=True)
    loss, metrics = token_loss(
        objective,
        value,
        advantages=torch.tensor([advantage]),
        sequence_ids=torch.tensor([0]),
        weights=torch.tensor([1.0]),
        **{name: torch.tensor([number], dtype=torch.float64) for name, number in others.items()},
    )
    (gradient,) = torch.autograd.grad(loss, value)
    return loss.item(), gradient.item(), summarize(metrics)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope", "clipped", "dual"),
    [
        (1.1, 2.0, -2.2, -2.2, 0, 0),
        (1.5, 2.0, -2.6, 0, 1, 0),
        (0.5, 2.0, -1.0, -1.0, 0, 0),
        (1.5, -2.0, 3.0, 3.0, 0, 0),
        (0.5, -2.0, 1.8, 0, 1, 0),
        (5.0, -2.0, 6.0, 0, 0, 1),
        (5.0, 2.0, -2.6, 0, 1, 0),
    ],
)
def test_clips(ratio: float, advantage: float, loss: float, slope: float, clipped: int, dual: int) -> None:
    objective = Objective(surrogate="ratio-clip", clip_low=0.1, clip_high=0.3, dual_clip=3.0, minibatches=2)
    found, gradient, record = one_token(objective, math.log(ratio) - 7, advantage, old=-7.0)
    assert (found, gradient) == pytest.approx((loss, slope))
    assert (record["clip_share"], record["dual_clip_share"]) == (clipped, dual)
    assert record["ratio_min"] == record["ratio_max"] == pytest.approx(ratio)


def test_no_ratio_is_infinite() -> None:
    objective = Objective(surrogate="ratio-clip", minibatches=2)
    loss, _, _ = one_token(objective, -0.1, -1.0, old=-2000.0)
    assert loss == pytest.approx(math.exp(20))


@pytest.mark.parametrize(
    ("behaviour", "weight"), [(-1.0, 1.0), (-0.5, math.exp(-0.5)), (-1.5, math.exp(0.5)), (-3.0, 2)]
)
def test_correction_without_a_ratio_leads_to_the_current_policy(behaviour: float, weight: float) -> None:
    objective = Objective(is_correction="truncated", is_cap=2.0)
    loss, gradient, record = one_token(objective, -1.0, 0.5, behaviour=behaviour)
    assert (loss, gradient) == pytest.approx((0.5 * weight, -0.5 * weight))
    assert record["is_ratio_mean"] == pytest.approx(math.exp(-1.0 - behaviour))
    assert record["is_capped_share"] == (weight == 2)


def test_correction_of_a_ratio_leads_to_the_old_policy() -> None:
    objective = Objective(surrogate="ratio-clip", is_correction="truncated", is_cap=2.0, minibatches=2)
    loss, _, _ = one_token(objective, -1.0, 1.0, old=-1.1, behaviour=-1.4)
    assert loss == pytest.approx(-math.exp(0.1) * math.exp(0.3))


def test_correction_of_whole_answers_takes_whole_ratios() -> None:
    objective = replace(PRESETS["rloo"], is_correction="truncated", is_cap=1.3)
    _, metrics = loss_and_metrics(objective)
    ratios = torch.stack([part.sum().exp() for part in (OLD - BEHAVIOUR).split(LENGTHS.tolist())])
    assert metrics["is_ratios_sum"] == N
    assert metrics["is_ratio_sum"].item() == pytest.approx(ratios.sum().item())
    assert metrics["is_capped_sum"] == (ratios > 1.3).sum() > 0


def test_behaviour_may_stand_for_the_old_policy() -> None:
    objective = replace(PRESETS["ppo-clip"], old_logprobs="behaviour")
    assert loss_and_metrics(objective)[0] == loss_and_metrics(PRESETS["ppo-clip"], old=BEHAVIOUR)[0]


def test_entropy_is_rewarded() -> None:
    objective = replace(PRESETS["empg"], entropy_coef=0.01)
    without = replace(objective, entropy_coef=0.0)
    difference = loss_and_metrics(objective)[0] - loss_and_metrics(without)[0]
    assert difference.item() == pytest.approx(-0.01 * ENTROPY.mean().item())


@pytest.mark.parametrize(
    ("objective", "missing"),
    [
        (PRESETS["empg"], "entropy"),
        (PRESETS["grpo"], "reference"),
        (PRESETS["ppo-clip"], "old"),
        (Objective(is_correction="truncated"), "sampler"),
        (Objective(surrogate="ratio-clip", old_logprobs="behaviour"), "sampler"),
    ],
)
def test_what_the_objective_needs_must_be_there(objective: Objective, missing: str) -> None:
    with pytest.raises(AssertionError, match=missing):
        one_token(objective, -1.0, 1.0)


def test_metrics_hold_no_graph() -> None:
    for objective in VARIANTS.values():
        _, metrics = loss_and_metrics(objective, LOGPROBS.clone().requires_grad_())
        assert not any(value.requires_grad for value in metrics.values())


def test_k3_is_bounded() -> None:
    logprobs, reference = torch.tensor([-0.1, -90.0]), torch.tensor([-90.0, -0.1])
    assert reference_kl("k3", logprobs, reference).tolist() == [10, 10]
    far = torch.tensor([-2000.0], requires_grad=True)
    divergence = reference_kl("k3", far, torch.tensor([0.0]))
    divergence.sum().backward()
    assert (divergence.item(), far.grad.item()) == (10, 0)


def test_summary_of_the_golden_batch() -> None:
    objective = replace(PRESETS["grpo"], dual_clip=3.0)
    loss, metrics = loss_and_metrics(objective)
    record = summarize(metrics)
    ratio = (LOGPROBS - OLD).exp()
    assert record["loss"] == loss.item() == pytest.approx(record["policy_loss"] + record["kl_loss"])
    assert record["tokens"] == 28
    assert record["ratio_mean"] == pytest.approx(ratio.mean().item())
    assert (record["ratio_min"], record["ratio_max"]) == pytest.approx((ratio.min().item(), ratio.max().item()))
    assert record["entropy"] == pytest.approx(ENTROPY.mean().item())
    assert record["behaviour_gap"] == pytest.approx((LOGPROBS - BEHAVIOUR).abs().mean().item())
    assert record["old_kl"] == pytest.approx((ratio - 1 - ratio.log()).mean().item())
    from_sampler = (LOGPROBS - BEHAVIOUR).exp()
    assert record["behaviour_kl"] == pytest.approx((from_sampler - 1 - from_sampler.log()).mean().item())
    assert {reduction(name) for name in metrics} == {"sum", "min", "max"}


def test_the_loss_of_several_steps_is_their_mean() -> None:
    loss, metrics = loss_and_metrics(PRESETS["grpo"])
    record = summarize(combine([metrics] * 4), steps=4)
    assert record["loss"] == pytest.approx(loss.item())
    assert record["kl_loss"] == pytest.approx(summarize(metrics)["kl_loss"])
    assert record["tokens"] == 4 * 28


@pytest.mark.parametrize("name", list(VARIANTS))
def test_derivatives_agree_with_finite_differences(name: str) -> None:
    objective = VARIANTS[name]
    found = estimate(objective)
    weights = aggregation_weights(objective, LENGTHS, found.keep, LONGEST)[SEQUENCES]
    per_token = torch.cat([found.of(row) for row in range(N)])
    picked = (2 * SEQUENCES + torch.arange(len(SEQUENCES))) % 5
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(len(SEQUENCES), 5, dtype=torch.float64, generator=generator)
    start = logits.log_softmax(-1).gather(1, picked[:, None])[:, 0]
    # Constant distances to the other policies that are away from the kinks of clips and caps.
    old, behaviour, reference = start + (OLD - LOGPROBS) * 0.9, start - 0.07 + OLD - BEHAVIOUR, start - 0.3

    def loss(values: Tensor) -> Tensor:
        logprobs = values.log_softmax(-1)
        return token_loss(
            objective,
            logprobs.gather(1, picked[:, None])[:, 0],
            old=old,
            # The correction without a ratio is a constant to the gradient but not to a finite difference.
            behaviour=behaviour if objective.uses_clip else logprobs.gather(1, picked[:, None])[:, 0].detach(),
            reference=reference,
            advantages=per_token,
            entropy=-(logprobs.exp() * logprobs).sum(-1),
            sequence_ids=SEQUENCES,
            weights=weights,
        )[0]

    assert torch.autograd.gradcheck(loss, logits.requires_grad_())


def test_learning_from_rewards_alone_moves_probability_to_rewarded_answers() -> None:
    objective = replace(PRESETS["empg"], entropy_coef=0.0)
    logprobs = LOGPROBS.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss_and_metrics(objective, logprobs)[0], logprobs)
    assert gradient[REWARDS[SEQUENCES] == 1].max() < 0 < gradient[REWARDS[SEQUENCES] == 0].min()
