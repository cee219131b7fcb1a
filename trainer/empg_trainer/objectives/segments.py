"""Statistics of values that belong to segments: answers to a prompt, tokens of an answer, a whole batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Segments:
    """`index[i]` in [0, count) is the segment of value i."""

    index: Tensor
    count: int

    @classmethod
    def of_labels(cls, labels: Tensor) -> Segments:
        """Values with equal integer labels are one segment, wherever they stand."""
        found, index = torch.unique(labels, return_inverse=True)
        return cls(index, len(found))

    @classmethod
    def of_lengths(cls, lengths: Tensor) -> Segments:
        """Consecutive runs; a run may be empty."""
        return cls(torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths), len(lengths))

    @classmethod
    def whole(cls, values: Tensor) -> Segments:
        """One segment with everything in it."""
        return cls(torch.zeros(len(values), dtype=torch.int64, device=values.device), 1)

    def sum(self, values: Tensor) -> Tensor:
        """Sum per segment [count]; 0 for an empty one. Differentiable."""
        return values.new_zeros(self.count).index_add(0, self.index, values)

    def min(self, values: Tensor) -> Tensor:
        """Least value per segment [count]; 0 for an empty one."""
        return self._extreme(values, "amin")

    def max(self, values: Tensor) -> Tensor:
        """Largest value per segment [count]; 0 for an empty one."""
        return self._extreme(values, "amax")

    def any_of(self, values: Tensor) -> Tensor:
        """One value per segment [count], for values that are equal within each; 0 for an empty one."""
        return values.new_zeros(self.count).scatter(0, self.index, values)

    def centred(self, values: Tensor, weights: Tensor | None = None) -> Tensor:
        """Values minus the (weighted) mean of their segment [n]. Exactly 0 where all values of a segment are equal."""
        weights = torch.ones_like(values) if weights is None else weights
        # Rounding of the mean of equal numbers would leave 1e-17, which a division by a tiny spread makes visible.
        shifted = values - self.min(values)[self.index]
        mean = _quotient(self.sum(weights * shifted), self.sum(weights))
        return shifted - mean[self.index]

    def variance(self, values: Tensor, weights: Tensor | None = None) -> Tensor:
        """Unbiased variance per segment [count], each value counted `weights` times; 0 for fewer than two."""
        weights = torch.ones_like(values) if weights is None else weights
        squares = self.sum(weights * self.centred(values, weights) ** 2)
        return _quotient(squares, self.sum(weights) - 1)

    def _extreme(self, values: Tensor, kind: str) -> Tensor:
        return values.new_zeros(self.count).scatter_reduce(0, self.index, values, kind, include_self=False)


def _quotient(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Elementwise quotient; 0 where the denominator is not positive."""
    return torch.where(denominator > 0, numerator / denominator.clamp(min=torch.finfo(numerator.dtype).tiny), 0.0)
