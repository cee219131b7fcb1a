"""The order of prompts."""

from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from empg.tasks.order import prompt_indices

seeds = st.integers(0, 2**31 - 1)
sizes = st.integers(1, 60)
counts = st.integers(1, 40)


def positions(seed: int, count: int, size: int | None, iterations: int) -> list[int]:
    return list(chain.from_iterable(prompt_indices(seed, t * count, count, size) for t in range(iterations)))


@given(seed=seeds, size=sizes, count=counts)
def test_every_epoch_holds_every_prompt_once(seed: int, size: int, count: int) -> None:
    order = positions(seed, count, size, 3 * size // count + 1)
    for epoch in range(3):
        assert sorted(order[epoch * size : (epoch + 1) * size]) == list(range(size))


@given(seed=seeds, size=sizes, count=counts, split=st.integers(1, 6))
def test_the_sequence_does_not_depend_on_how_it_is_cut(seed: int, size: int, count: int, split: int) -> None:
    assert positions(seed, count * split, size, 4) == positions(seed, count, size, 4 * split)


@given(seed=seeds, first=st.integers(0, 10**6), count=counts, size=st.one_of(st.none(), sizes))
def test_any_positions_can_be_asked_alone(seed: int, first: int, count: int, size: int | None) -> None:
    indices = prompt_indices(seed, first, count, size)
    assert len(indices) == count
    assert indices == prompt_indices(seed, first, count, size)
    if size is None:
        assert indices == list(range(first, first + count))


def test_epochs_and_seeds_differ() -> None:
    first, second = prompt_indices(0, 0, 100, 100), prompt_indices(0, 100, 100, 100)
    assert first != second
    assert first != prompt_indices(1, 0, 100, 100)
    assert first != list(range(100))


def test_places_of_a_shuffle_are_uniform() -> None:
    firsts = [prompt_indices(seed, 0, 1, 5)[0] for seed in range(2000)]
    assert all(330 < firsts.count(index) < 470 for index in range(5))


def test_the_order_is_the_one_that_earlier_runs_had() -> None:
    assert prompt_indices(0, 0, 10, 10) == [0, 1, 8, 7, 6, 3, 2, 5, 9, 4]
