"""From prompts and answers to the tensors of a micro-batch. Answers to the same prompt share its tokens.

With a prompt as long as its answers and 8 of them, that is 1.8 times less to compute everywhere but in attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, Protocol

import torch
from torch import Tensor

SHARES_PER_RANK = 8
"""Bundles that every rank gets at least, where there are enough answers: larger ones could not be shared out evenly."""

LEAST_SAVED = 0.1
"""Share of the tokens of a prompt's answers that must be saved, or each keeps its own prompt: to unroll costs too."""

UNROLLED_PER_TOKEN = 2
"""Unrolled tokens that take as much memory as one that is there for itself: attention keeps a few numbers of each, of
which a layer has some ten times as many."""

Bundle = Sequence[int]
"""Indices of answers to the same prompt."""


class Answered(Protocol):
    """Token ids of a prompt and of an answer to it, as a `Trajectory` has them."""

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """At least one."""

    @property
    def response_ids(self) -> tuple[int, ...]:
        """At least one."""


@dataclass(frozen=True)
class MicroBatch:
    """S answers of n tokens in all, packed as T tokens that make U tokens when every answer has its own prompt."""

    answers: Tensor
    """[n] int64: which answer of the iteration each response token belongs to."""
    offsets: Tensor
    """[n] int64: its place in the answer."""
    input_ids: Tensor
    """[T] int64: prompts, each followed by its responses without their last tokens, which predict nothing."""
    position_ids: Tensor
    """[T] int64, from 0 in each prompt, and on from its end in each response."""
    cu_seqlens: Tensor
    """[S + 1] int32 boundaries of the whole sequences among the U tokens."""
    max_length: int
    """Tokens of the longest sequence."""
    unroll: Tensor | None
    """[U] int64: which of the T tokens each token of the whole sequences is. None: no prompt is shared, U is T."""
    roll: Tensor | None
    """[T] int64: where each of the T tokens first is among the U."""
    positions: Tensor
    """[n] int64: index of the token before each response token among the T."""
    targets: Tensor
    """[n] int64 response tokens."""
    padding: bool
    """There was nothing to pack: one meaningless token keeps this rank in step with the others. Weigh it 0."""

    def to(self, device: torch.device) -> MicroBatch:
        """The same on another device."""
        return replace(
            self,
            answers=self.answers.to(device),
            offsets=self.offsets.to(device),
            input_ids=self.input_ids.to(device),
            position_ids=self.position_ids.to(device),
            cu_seqlens=self.cu_seqlens.to(device),
            unroll=None if self.unroll is None else self.unroll.to(device),
            roll=None if self.roll is None else self.roll.to(device),
            positions=self.positions.to(device),
            targets=self.targets.to(device),
        )

    def inputs(self) -> dict[str, Any]:
        """Arguments of `Policy.forward` but the temperature."""
        names = ("input_ids", "position_ids", "cu_seqlens", "max_length", "unroll", "roll", "positions", "targets")
        return {name: getattr(self, name) for name in names}


def share_prompts(rows: Sequence[Answered], chosen: Sequence[int], world: int, budget: int) -> list[Bundle]:
    """The answers `rows[i] for i in chosen` as bundles of at most `budget` tokens, or of one answer.

    Smaller ones where `world` ranks need them to have the same to do.
    """
    if world > 1:
        budget = min(budget, sum(len(rows[index].response_ids) - 1 for index in chosen) // (SHARES_PER_RANK * world))
    groups: dict[tuple[int, ...], list[int]] = {}
    for index in chosen:
        groups.setdefault(rows[index].prompt_ids, []).append(index)
    return [bundle for group in groups.values() for bundle in _bundles(rows, group, budget)]


def _bundles(rows: Sequence[Answered], group: Bundle, budget: int) -> list[Bundle]:
    """Answers to one prompt as bundles."""
    prompt = len(rows[group[0]].prompt_ids)
    if (len(group) - 1) * prompt < LEAST_SAVED * sum(bundle_length(rows, [index]) for index in group):
        return [[index] for index in group]
    bundles: list[list[int]] = []
    answers = 0
    for index in group:
        more = len(rows[index].response_ids) - 1
        if bundles and _length(prompt, len(bundles[-1]) + 1, answers + more) <= budget:
            bundles[-1].append(index)
            answers += more
        else:
            bundles.append([index])
            answers = more
    return list(bundles)


def bundle_length(rows: Sequence[Answered], bundle: Bundle) -> int:
    """Tokens that a bundle counts as in a pack: those that it has, or more where unrolling makes very many of them."""
    answers = sum(len(rows[index].response_ids) - 1 for index in bundle)
    return _length(len(rows[bundle[0]].prompt_ids), len(bundle), answers)


def _length(prompt: int, count: int, answers: int) -> int:
    """The same, of `count` answers of so many tokens in all."""
    return max(prompt + answers, -(-(count * prompt + answers) // UNROLLED_PER_TOKEN))


def collate(rows: Sequence[Answered], bundles: Sequence[Bundle]) -> MicroBatch:
    """The micro-batch of bundles of the answers `rows`."""
    if not bundles:
        pair = torch.zeros(2, dtype=torch.int64)
        return MicroBatch(
            answers=pair[:1],
            offsets=pair[:1],
            input_ids=pair,
            position_ids=torch.arange(2),
            cu_seqlens=torch.tensor([0, 2], dtype=torch.int32),
            max_length=2,
            unroll=None,
            roll=None,
            positions=pair[:1],
            targets=pair[:1],
            padding=True,
        )
    ids: list[int] = []
    targets: list[int] = []
    places, position_ids, unroll, roll = _Ramps(), _Ramps(), _Ramps(), _Ramps()
    whole: list[int] = []
    for bundle in bundles:
        prompt = rows[bundle[0]].prompt_ids
        at, size = len(ids), len(prompt)
        ids += prompt
        position_ids.add(0, size)
        roll.add(unroll.total, size)
        for index in bundle:
            response = rows[index].response_ids
            places.add(at + size - 1, 1)
            places.add(len(ids), len(response) - 1)
            unroll.add(at, size)
            roll.add(unroll.total, len(response) - 1)
            unroll.add(len(ids), len(response) - 1)
            position_ids.add(size, len(response) - 1)
            ids += response[:-1]
            targets += response
            whole.append(size + len(response) - 1)
    part = [index for bundle in bundles for index in bundle]
    responses = torch.tensor([len(rows[index].response_ids) for index in part])
    shared = len(part) > len(bundles)
    return MicroBatch(
        answers=torch.tensor(part).repeat_interleave(responses),
        offsets=_ramps(torch.zeros_like(responses), responses),
        input_ids=torch.tensor(ids),
        position_ids=position_ids.tensor(),
        cu_seqlens=torch.tensor([0, *accumulate(whole)], dtype=torch.int32),
        max_length=max(whole),
        unroll=unroll.tensor() if shared else None,
        roll=roll.tensor() if shared else None,
        positions=places.tensor(),
        targets=torch.tensor(targets),
        padding=False,
    )


class _Ramps:
    """Runs of consecutive numbers, one after the other."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.lengths: list[int] = []
        self.total = 0

    def add(self, start: int, length: int) -> None:
        self.starts.append(start)
        self.lengths.append(length)
        self.total += length

    def tensor(self) -> Tensor:
        return _ramps(torch.tensor(self.starts), torch.tensor(self.lengths))


def _ramps(starts: Tensor, lengths: Tensor) -> Tensor:
    """start, start + 1, … for each start, as many as its length."""
    before = lengths.cumsum(0) - lengths
    return torch.arange(int(lengths.sum())) + (starts - before).repeat_interleave(lengths)
