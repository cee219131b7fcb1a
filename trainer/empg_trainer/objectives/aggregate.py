"""How token losses become one number: a weight per token, taken over the whole batch of an optimizer step."""

from __future__ import annotations

import torch
from torch import Tensor

from empg.objective import Objective


def aggregation_weights(objective: Objective, lengths: Tensor, keep: Tensor, max_tokens: int) -> Tensor:
    """The weight of each token of each answer [N], float64: the sum of weight × token loss over all tokens is the loss.

    Args:
        lengths: [N] response tokens of every answer of the optimizer step, over all micro-batches and ranks.
        keep: [N] bool; an answer that is not kept has weight 0 and counts in the mean as `objective.denominator`
            says. An answer without tokens never counts.
        max_tokens: longest answer that sampling allows; read by `constant`.
    """
    entering = keep & (lengths > 0)
    counted = lengths > 0 if objective.denominator == "all" else entering
    answers = counted.sum().clamp(min=1).double()
    match objective.aggregate:
        case "token-mean":
            weights = (1 / lengths[counted].sum().clamp(min=1).double()).expand(len(lengths))
        case "seq-mean-token-mean":
            weights = 1 / (answers * lengths.clamp(min=1))
        case "seq-mean-token-sum":
            weights = (1 / answers).expand(len(lengths))
        case "constant":
            weights = (1 / (answers * max_tokens)).expand(len(lengths))
    return torch.where(entering, weights, 0.0)
