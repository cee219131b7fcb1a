"""Packing of sequences into micro-batches of at most so many tokens, the same number of them on every rank.

The result depends on lengths, world size and budget alone, so every rank works it out for itself.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

Packing = list[list[list[int]]]
"""`packing[rank][micro_batch]` holds indices of sequences. An empty micro-batch is padding: it trains nothing, but
its rank must still run it, because ZeRO makes every forward and backward pass a collective operation."""


def pack(lengths: Sequence[int], world: int, budget: int) -> Packing:
    """Distribute sequences of `lengths` tokens over micro-batches of at most `budget` tokens on `world` ranks.

    A sequence longer than the budget makes a micro-batch of its own. Micro-batch k of every rank holds a similar number
    of tokens, since ranks wait for each other at each one. No sequences give no micro-batches.
    """
    if world < 1 or budget < 1:
        raise ValueError(f"packing needs a world size and a token budget of at least 1, not {world} and {budget}")
    bins = _first_fit_decreasing(lengths, budget)
    _split_to_multiple(bins, lengths, world)

    def tokens(part: list[int]) -> int:
        return sum(lengths[i] for i in part)

    bins.sort(key=lambda part: (-tokens(part), part))
    ranks: Packing = [[] for _ in range(world)]
    loads = [0] * world
    for first in range(0, len(bins), world):
        # Of the next `world` bins, which are of similar size, the largest goes to the rank that is behind most.
        lightest_first = sorted(range(world), key=lambda rank: (loads[rank], rank))
        for rank, part in zip(lightest_first, bins[first : first + world], strict=True):
            ranks[rank].append(part)
            loads[rank] += tokens(part)
    return ranks


def _first_fit_decreasing(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Bins of indices, each in ascending order. A tree of free space finds the first fitting bin in O(log n)."""
    count = len(lengths)
    leaves = 1 << max(count - 1, 0).bit_length()
    free = [budget] * (2 * leaves)
    bins: list[list[int]] = []
    oversized: list[list[int]] = []
    for index in sorted(range(count), key=lambda i: (-lengths[i], i)):
        length = lengths[index]
        if length > budget:
            oversized.append([index])
            continue
        node = 1
        while node < leaves:
            node = 2 * node if free[2 * node] >= length else 2 * node + 1
        position = node - leaves
        bins.extend([] for _ in range(position + 1 - len(bins)))
        bins[position].append(index)
        free[node] -= length
        while node > 1:
            node //= 2
            free[node] = max(free[2 * node], free[2 * node + 1])
    return oversized + [sorted(part) for part in bins]


def _split_to_multiple(bins: list[list[int]], lengths: Sequence[int], world: int) -> None:
    """Split the fullest bins, then pad with empty ones, until their number is a multiple of `world`."""
    heap = [(-sum(lengths[i] for i in part), position) for position, part in enumerate(bins) if len(part) > 1]
    heapq.heapify(heap)
    while len(bins) % world:
        if not heap:
            bins.append([])
            continue
        _, position = heapq.heappop(heap)
        halves = _halve(bins[position], lengths)
        bins[position] = halves[0]
        bins.append(halves[1])
        for part, at in zip(halves, (position, len(bins) - 1), strict=True):
            if len(part) > 1:
                heapq.heappush(heap, (-sum(lengths[i] for i in part), at))


def _halve(part: list[int], lengths: Sequence[int]) -> tuple[list[int], list[int]]:
    """Two non-empty parts with about the same number of tokens."""
    halves: tuple[list[int], list[int]] = ([], [])
    loads = [0, 0]
    for index in sorted(part, key=lambda i: (-lengths[i], i)):
        side = 1 if loads[1] < loads[0] or (loads[0] == loads[1] and len(halves[1]) < len(halves[0])) else 0
        halves[side].append(index)
        loads[side] += lengths[index]
    return sorted(halves[0]), sorted(halves[1])
