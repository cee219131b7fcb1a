"""The order in which a run meets its prompts: a pure function of seed and position, so that any process may ask."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from random import Random


def prompt_indices(seed: int, first: int, count: int, size: int | None) -> list[int]:
    """Indices of `count` prompts from position `first` on of an endless sequence.

    It is 0, 1, 2, … for a source without end (`size` None), else one seeded shuffle of all `size` prompts after
    another, so that none repeats within an epoch.
    """
    assert first >= 0, "positions count from 0"
    assert count >= 1, "an iteration has at least one prompt"
    positions = range(first, first + count)
    if size is None:
        return list(positions)
    assert size >= 1, "an empty source has no order"
    return [_shuffled(seed, position // size, size)[position % size] for position in positions]


@lru_cache(maxsize=2)
def _shuffled(seed: int, epoch: int, size: int) -> tuple[int, ...]:
    """One epoch's permutation of range(size)."""
    digest = hashlib.blake2b(f"{seed}|order|{epoch}".encode(), digest_size=8).digest()
    rng = Random(int.from_bytes(digest, "big"))
    order = list(range(size))
    # Fisher–Yates over Random.random, the one method whose stream Python promises to keep between versions.
    for last in range(size - 1, 0, -1):
        other = int(rng.random() * (last + 1))
        order[last], order[other] = order[other], order[last]
    return tuple(order)
