"""From trajectories to the tensors of a micro-batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from empg.trajectory import Trajectory


@dataclass(frozen=True)
class MicroBatch:
    """S packed sequences of T tokens with n response tokens in all."""

    answers: Tensor
    """[n] int64: which answer of the iteration each response token belongs to."""
    offsets: Tensor
    """[n] int64: its place in the answer."""
    input_ids: Tensor
    """[T] int64: prompts and responses without the last token, which predicts nothing."""
    position_ids: Tensor
    """[T] int64, from 0 in each sequence."""
    cu_seqlens: Tensor
    """[S + 1] int32 boundaries of the sequences."""
    max_length: int
    """Tokens of the longest sequence."""
    positions: Tensor
    """[n] int64: index of the token before each response token."""
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
            positions=self.positions.to(device),
            targets=self.targets.to(device),
        )

    def inputs(self) -> dict[str, Tensor | int]:
        """Arguments of ``Policy.forward`` but the temperature."""
        names = ("input_ids", "position_ids", "cu_seqlens", "max_length", "positions", "targets")
        return {name: getattr(self, name) for name in names}


def sequence_length(row: Trajectory) -> int:
    """Tokens that a trajectory takes in a pack."""
    return len(row.prompt_ids) + len(row.response_ids) - 1


def collate(rows: Sequence[Trajectory], part: Sequence[int]) -> MicroBatch:
    """The micro-batch of the trajectories ``rows[i] for i in part``, each with at least one response token."""
    if not part:
        pair = torch.zeros(2, dtype=torch.int64)
        return MicroBatch(
            answers=pair[:1],
            offsets=pair[:1],
            input_ids=pair,
            position_ids=torch.arange(2),
            cu_seqlens=torch.tensor([0, 2], dtype=torch.int32),
            max_length=2,
            positions=pair[:1],
            targets=pair[:1],
            padding=True,
        )
    ids: list[int] = []
    targets: list[int] = []
    bounds = [0]
    for index in part:
        row = rows[index]
        ids += row.prompt_ids
        ids += row.response_ids[:-1]
        targets += row.response_ids
        bounds.append(len(ids))
    responses = torch.tensor([len(rows[i].response_ids) for i in part])
    ends = torch.tensor(bounds[1:])
    lengths = torch.tensor(bounds).diff()
    return MicroBatch(
        answers=torch.tensor(part).repeat_interleave(responses),
        offsets=_ramps(responses),
        input_ids=torch.tensor(ids),
        position_ids=_ramps(lengths),
        cu_seqlens=torch.tensor(bounds, dtype=torch.int32),
        max_length=int(lengths.max()),
        positions=(ends - responses).repeat_interleave(responses) + _ramps(responses),
        targets=torch.tensor(targets),
        padding=False,
    )


def _ramps(lengths: Tensor) -> Tensor:
    """0, 1, … length − 1 for each length, one after the other."""
    starts = lengths.cumsum(0) - lengths
    return torch.arange(int(lengths.sum())) - starts.repeat_interleave(lengths)
