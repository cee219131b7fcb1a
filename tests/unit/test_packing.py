"""Packing: every sequence once, budget kept, ranks in step, few micro-batches, the same result everywhere."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from empg_trainer.packing import pack

LENGTHS = st.lists(st.integers(1, 300), max_size=120)


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 9), st.integers(1, 256))
def test_every_sequence_is_packed_exactly_once(lengths, world, budget):
    packing = pack(lengths, world, budget)
    indices = sorted(i for rank in packing for part in rank for i in part)
    assert indices == list(range(len(lengths)))


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 9), st.integers(1, 256))
def test_ranks_run_the_same_number_of_micro_batches(lengths, world, budget):
    packing = pack(lengths, world, budget)
    assert len(packing) == world
    assert len({len(rank) for rank in packing}) == 1


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 9), st.integers(1, 256))
def test_budget_holds_except_for_a_single_longer_sequence(lengths, world, budget):
    for rank in pack(lengths, world, budget):
        for part in rank:
            assert sum(lengths[i] for i in part) <= budget or len(part) == 1


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 9), st.integers(1, 256))
def test_micro_batches_stay_empty_only_when_sequences_run_out(lengths, world, budget):
    parts = [part for rank in pack(lengths, world, budget) for part in rank]
    empty = sum(not part for part in parts)
    assert empty < world
    if empty:
        assert all(len(part) <= 1 for part in parts)


@settings(deadline=None)
@given(LENGTHS, st.integers(1, 256))
def test_at_most_one_micro_batch_of_a_single_rank_is_half_empty(lengths, budget):
    packing = pack(lengths, 1, budget)
    loads = [sum(lengths[i] for i in part) for part in packing[0]]
    assert sum(2 * load <= budget for load in loads) <= 1


@settings(deadline=None)
@given(st.lists(st.integers(1, 64), min_size=32, max_size=200), st.integers(2, 8))
def test_ranks_carry_similar_loads(lengths, world):
    loads = [sum(lengths[i] for part in rank for i in part) for rank in pack(lengths, world, 128)]
    assert max(loads) - min(loads) <= 128


def test_packing_is_deterministic_and_fills_bins():
    assert pack([5, 5, 4, 4, 2], 1, 10) == [[[0, 1], [2, 3, 4]]]
    assert pack([5, 5, 4, 4, 2], 2, 10) == [[[0, 1]], [[2, 3, 4]]]


def test_a_bin_is_split_before_an_empty_one_is_added():
    assert pack([3, 3], 2, 100) == [[[0]], [[1]]]
    assert pack([3], 2, 100) == [[[0]], [[]]]


def test_no_sequences_give_no_micro_batches():
    assert pack([], 3, 16) == [[], [], []]


def test_a_senseless_world_is_refused():
    with pytest.raises(ValueError, match="world size"):
        pack([1], 0, 16)
