"""Tensors of a micro-batch."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from empg.trajectory import Trajectory
from empg.verdict import Verdict
from empg_trainer.batch import SHARES_PER_RANK, UNROLLED_PER_TOKEN, bundle_length, collate, share_prompts


def trajectory(prompt, response):
    return Trajectory(
        run="u",
        iteration=0,
        unit="00-0000",
        prompt_id="p",
        sample=0,
        prompt="",
        prompt_ids=tuple(prompt),
        response_ids=tuple(response),
        response="",
        logprobs=(0.0,) * len(response),
        policy_versions=((0, len(response)),),
        finish_reason="stop",
        reward=1.0,
        rewards={},
        verdict=Verdict.CORRECT,
    )


def test_two_sequences():
    rows = [trajectory([10, 11], [12, 13, 14]), trajectory([20], [21]), trajectory([30], [31, 32])]
    batch = collate(rows, [[2], [0]])
    assert batch.input_ids.tolist() == [30, 31, 10, 11, 12, 13]
    assert batch.position_ids.tolist() == [0, 1, 0, 1, 2, 3]
    assert batch.cu_seqlens.tolist() == [0, 2, 6]
    assert batch.max_length == 4
    assert batch.unroll is batch.roll is None
    assert batch.targets.tolist() == [31, 32, 12, 13, 14]
    assert batch.positions.tolist() == [0, 1, 3, 4, 5]
    assert batch.answers.tolist() == [2, 2, 0, 0, 0]
    assert batch.offsets.tolist() == [0, 1, 0, 1, 2]


def test_three_answers_to_one_prompt():
    """The last token of the prompt comes before the first of each answer; an answer of one token adds none."""
    rows = [trajectory([10, 11], [12, 13, 14]), trajectory([10, 11], [15]), trajectory([10, 11], [16, 17])]
    batch = collate(rows, [[0, 1, 2]])
    assert batch.input_ids.tolist() == [10, 11, 12, 13, 16]
    assert batch.position_ids.tolist() == [0, 1, 2, 3, 2]
    assert batch.cu_seqlens.tolist() == [0, 4, 6, 9]
    assert batch.max_length == 4
    assert batch.unroll.tolist() == [0, 1, 2, 3, 0, 1, 0, 1, 4]
    assert batch.roll.tolist() == [0, 1, 2, 3, 8]
    assert batch.targets.tolist() == [12, 13, 14, 15, 16, 17]
    assert batch.positions.tolist() == [1, 2, 3, 1, 1, 4]
    assert batch.answers.tolist() == [0, 0, 0, 1, 2, 2]


PROMPTS = st.integers(0, 3).map(lambda number: list(range(number, 2 * number + 1)))
ANSWERS = st.lists(st.integers(0, 99), min_size=1, max_size=9)
PAIRS = st.lists(st.tuples(PROMPTS, ANSWERS), min_size=1, max_size=12)


@settings(deadline=None)
@given(PAIRS, st.integers(1, 3), st.integers(1, 60))
def test_bundles_hold_every_answer_once_and_keep_to_the_budget(pairs, world, budget):
    rows = [trajectory(*pair) for pair in pairs]
    bundles = share_prompts(rows, range(len(rows)), world, budget)
    assert sorted(index for bundle in bundles for index in bundle) == list(range(len(rows)))
    for bundle in bundles:
        assert len({rows[index].prompt_ids for index in bundle}) == 1
        batch = collate(rows, [bundle])
        tokens, unrolled = len(batch.input_ids), int(batch.cu_seqlens[-1])
        assert bundle_length(rows, bundle) == max(tokens, math.ceil(unrolled / UNROLLED_PER_TOKEN))
        assert bundle_length(rows, bundle) <= budget or len(bundle) == 1


def test_answers_stay_together_as_far_as_ranks_can_be_busy():
    rows = [trajectory([1, 2, 3], [4, 5, 6]) for _ in range(64)]
    assert len(share_prompts(rows, range(64), 1, 1000)) == 1
    assert len(share_prompts(rows, range(64), 1, 131)) == 2
    shared = share_prompts(rows, range(64), 2, 1000)
    assert 2 * SHARES_PER_RANK <= len(shared) < 64


@pytest.mark.parametrize(("answer", "bundles"), [(7, 1), (60, 8)])
def test_a_prompt_that_is_short_beside_its_answers_is_not_shared(answer, bundles):
    rows = [trajectory([1, 2, 3], range(answer)) for _ in range(8)]
    assert len(share_prompts(rows, range(8), 1, 1000)) == bundles


@settings(deadline=None)
@given(PAIRS, st.integers(1, 60))
def test_what_is_packed_makes_the_whole_sequences(pairs, budget):
    rows = [trajectory(*pair) for pair in pairs]
    bundles = share_prompts(rows, range(len(rows)), 1, budget)
    batch = collate(rows, bundles)
    tokens = len(batch.input_ids)
    unroll, roll = batch.unroll, batch.roll
    if unroll is None:
        assert len(bundles) == len(rows)
        unroll = roll = torch.arange(tokens)
    assert unroll[roll].tolist() == list(range(tokens))
    bounds = batch.cu_seqlens.tolist()
    order = [index for bundle in bundles for index in bundle]
    for index, start, end in zip(order, bounds[:-1], bounds[1:], strict=True):
        row, places = rows[index], unroll[start:end]
        assert batch.input_ids[places].tolist() == [*row.prompt_ids, *row.response_ids[:-1]]
        assert batch.position_ids[places].tolist() == list(range(end - start))
        mine = batch.answers == index
        assert batch.targets[mine].tolist() == list(row.response_ids)
        assert batch.positions[mine].tolist() == places[len(row.prompt_ids) - 1 :].tolist()
        assert batch.offsets[mine].tolist() == list(range(len(row.response_ids)))


def test_nothing_to_pack_gives_one_meaningless_token():
    batch = collate([], [])
    assert batch.padding
    assert len(batch.targets) == 1
