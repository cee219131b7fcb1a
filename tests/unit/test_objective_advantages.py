"""Advantages: identities between estimators, invariances, filters, and batches with nothing in them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from golden_batch import GROUPS, LENGTHS, OLD, REFERENCE, REWARDS, estimate
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from empg.objective import PRESETS, Filter, Objective
from empg_trainer.objectives import advantages

OUTCOME = {name: replace(preset, kl="none") for name, preset in PRESETS.items()}
"""The presets without a divergence in the reward."""


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards, groups of two to five answers, lengths."""
    sizes = draw(st.lists(st.integers(2, 5), min_size=1, max_size=5))
    n = sum(sizes)
    rewards = draw(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=n, max_size=n))
    lengths = draw(st.lists(st.integers(0, 6), min_size=n, max_size=n))
    groups = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return torch.tensor(rewards, dtype=torch.float64), groups, torch.tensor(lengths)


def values(objective: Objective, rewards: Tensor, groups: Tensor, lengths: Tensor) -> Tensor:
    return advantages(objective, rewards, groups, lengths).values


@settings(deadline=None, max_examples=30)
@given(batches(), st.randoms(use_true_random=False))
def test_every_preset_is_equivariant_to_the_order_of_answers(batch, random) -> None:
    rewards, groups, lengths = batch
    order = list(range(len(rewards)))
    random.shuffle(order)
    for objective in OUTCOME.values():
        expected = values(objective, rewards, groups, lengths)[order]
        found = values(objective, rewards[order], groups[order], lengths[order])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@settings(deadline=None, max_examples=30)
@given(batches(), st.floats(0.5, 10), st.floats(-5, 5))
def test_whitening_is_invariant_to_affine_maps_of_rewards(batch, factor: float, offset: float) -> None:
    rewards, groups, lengths = batch
    for name in ("empg", "empg-paper", "reinforce++", "ppo-clip", "reinforce++-baseline"):
        # Epsilon is not scaled with the rewards.
        objective = replace(OUTCOME[name], scale_epsilon=1e-15)
        expected = values(objective, rewards, groups, lengths)
        found = values(objective, factor * rewards + offset, groups, lengths)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(batches())
def test_identities_between_estimators(batch) -> None:
    rewards, groups, lengths = batch
    lengths = lengths + 1
    dr_grpo = values(OUTCOME["dr-grpo"], rewards, groups, lengths)
    size = torch.bincount(groups)[groups].double()
    spread = torch.stack([rewards[groups == group].std() for group in groups])
    torch.testing.assert_close(values(OUTCOME["rloo"], rewards, groups, lengths), size / (size - 1) * dr_grpo)
    torch.testing.assert_close(values(OUTCOME["grpo"], rewards, groups, lengths), dr_grpo / (spread + 1e-6))
    whitened = values(OUTCOME["reinforce++"], rewards, groups, lengths)
    torch.testing.assert_close(values(OUTCOME["empg"], rewards, groups, lengths), torch.tanh(whitened / 2))


def test_only_group_estimators_ignore_a_constant_per_prompt() -> None:
    shift = torch.where(GROUPS.eq(ord("a")), 0.5, 0.0)
    for name, objective in OUTCOME.items():
        same = torch.allclose(
            values(objective, REWARDS + shift, GROUPS, LENGTHS), values(objective, REWARDS, GROUPS, LENGTHS)
        )
        assert same == objective.needs_group, name


def test_labels_of_groups_need_not_be_dense_or_contiguous() -> None:
    order = torch.tensor([0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11])
    labels = torch.tensor([-7, 10**12, 3])[(GROUPS - GROUPS.min())[order]]
    found = values(OUTCOME["grpo"], REWARDS[order], labels, LENGTHS[order])
    torch.testing.assert_close(found, values(OUTCOME["grpo"], REWARDS, GROUPS, LENGTHS)[order])


@pytest.mark.parametrize("name", ["empg", "empg-paper", "grpo", "dr-grpo", "rloo", "reinforce++", "ppo-clip"])
@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1])
def test_equal_rewards_give_exactly_zero(name: str, reward: float) -> None:
    rewards = torch.full((7,), reward, dtype=torch.float64)
    groups, lengths = torch.tensor([0, 0, 0, 1, 1, 1, 1]), torch.tensor([3, 0, 1, 7, 2, 2, 5])
    assert values(OUTCOME[name], rewards, groups, lengths).tolist() == [0.0] * 7


@pytest.mark.parametrize("name", list(PRESETS))
def test_batches_of_one_answer_and_of_none_have_finite_advantages(name: str) -> None:
    for n in (0, 1):
        for length in (0, 1, 3):
            rewards, groups = torch.ones(n, dtype=torch.float64), torch.zeros(n, dtype=torch.int64)
            found = advantages(OUTCOME[name], rewards, groups, torch.full((n,), length))
            assert found.values.isfinite().all()
            assert all(value == value for value in found.stats.values())


@pytest.mark.parametrize("name", ["grpo", "dr-grpo", "rloo"])
def test_a_group_that_shrank_to_one_answer_has_advantage_zero(name: str) -> None:
    rewards, groups = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64), torch.tensor([5, 6, 6])
    found = values(OUTCOME[name], rewards, groups, torch.tensor([2, 2, 2]))
    assert found[0] == 0
    assert found[1] > 0 > found[2]


@pytest.mark.parametrize(
    ("name", "kept"),
    [("zero-variance", "a"), ("all-right", "ab"), ("all-wrong", "ac"), ("small-advantage", "")],
)
def test_filters_keep(name: Filter, kept: str) -> None:
    objective = replace(OUTCOME["dr-grpo"], filters=(name,), min_advantage=0.5)
    found = estimate(objective)
    # |A| is exactly 0.5 in group a: small-advantage keeps what is above its bound.
    assert found.keep.tolist() == [chr(int(group)) in kept for group in GROUPS]
    assert found.values[~found.keep].eq(0).all()
    assert found.stats["answers_filtered"] == 12 - 4 * len(kept)
    assert found.stats["groups_zero_variance"] == 2
    if name == "small-advantage":
        assert estimate(replace(objective, min_advantage=0.49)).keep.tolist() == [chr(int(g)) == "a" for g in GROUPS]


def test_filters_on_rewards_also_shape_the_statistics_of_the_batch() -> None:
    objective = replace(OUTCOME["empg"], filters=("all-wrong",))
    rest = GROUPS.ne(ord("b"))
    expected = values(OUTCOME["empg"], REWARDS[rest], GROUPS[rest], LENGTHS[rest])
    torch.testing.assert_close(estimate(objective).values[rest], expected)


def test_filters_may_drop_everything() -> None:
    objective = replace(OUTCOME["empg"], filters=("all-wrong", "small-advantage"))
    found = advantages(objective, torch.zeros(4).double(), torch.tensor([0, 0, 1, 1]), torch.tensor([1, 2, 3, 4]))
    assert not found.keep.any()
    assert found.values.tolist() == [0.0] * 4
    assert found.stats["answers_filtered"] == 4


def test_divergence_in_the_reward_is_returned_to_the_tokens_before_it() -> None:
    objective = replace(PRESETS["reinforce++"], kl_beta=0.5)
    kl = OLD - REFERENCE
    found = estimate(objective)
    returns: list[float] = []
    for row, tokens in enumerate(kl.split(LENGTHS.tolist())):
        returns += [float(REWARDS[row] - 0.5 * tokens[position:].sum()) for position in range(len(tokens))]
    expected = torch.tensor(returns, dtype=torch.float64)
    expected = (expected - expected.mean()) / (expected.var() + 1e-8).sqrt()
    torch.testing.assert_close(torch.cat([found.of(row) for row in range(12)]), expected)


def test_divergence_in_the_reward_counts_whole_answers_for_group_baselines() -> None:
    objective = PRESETS["rloo"]
    divergence = torch.stack([tokens.sum() for tokens in (OLD - REFERENCE).split(LENGTHS.tolist())])
    expected = values(OUTCOME["rloo"], REWARDS - 0.05 * divergence, GROUPS, LENGTHS)
    torch.testing.assert_close(estimate(objective).values, expected)


def test_filters_go_with_a_divergence_per_token() -> None:
    objective = replace(PRESETS["reinforce++"], filters=("all-wrong", "small-advantage"), min_advantage=0.2)
    found = estimate(objective)
    kept = GROUPS.ne(ord("b"))
    tokens = torch.repeat_interleave(kept, LENGTHS)
    alone = advantages(
        replace(objective, filters=()), REWARDS[kept], GROUPS[kept], LENGTHS[kept], (OLD - REFERENCE)[tokens]
    )
    rows = [alone.of(row) for row in range(8)]
    largest = iter([float(row.abs().max()) for row in rows])
    assert found.keep.tolist() == [bool(group_kept) and next(largest) > 0.2 for group_kept in kept]
    assert all(found.of(row).eq(0).all() for row in range(12) if not found.keep[row])
    expected = iter(rows)
    for row in range(12):
        if kept[row]:
            alone_row = next(expected)
            if found.keep[row]:
                torch.testing.assert_close(found.of(row), alone_row)


def test_answers_without_tokens_have_advantages_without_tokens() -> None:
    found = advantages(
        PRESETS["reinforce++"],
        torch.tensor([1.0, 0.0, 1.0]),
        torch.tensor([0, 0, 0]),
        torch.tensor([2, 0, 1]),
        torch.tensor([0.1, 0.2, 0.3]),
    )
    assert [len(found.of(row)) for row in range(3)] == [2, 0, 1]


@pytest.mark.parametrize("reward", [float("nan"), float("inf")])
def test_rewards_must_be_finite(reward: float) -> None:
    with pytest.raises(ValueError, match="leave answers without a grade out"):
        advantages(PRESETS["grpo"], torch.tensor([reward, 1.0]), torch.tensor([0, 0]), torch.tensor([1, 1]))


def test_divergence_must_be_finite() -> None:
    with pytest.raises(ValueError, match="check both models"):
        advantages(
            PRESETS["rloo"], torch.ones(2), torch.tensor([0, 0]), torch.tensor([1, 1]), torch.tensor([0.0, torch.nan])
        )
