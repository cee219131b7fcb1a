"""Metrics that add up over micro-batches and ranks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

MEANS = {
    "entropy": ("entropy_sum", "tokens_sum"),
    "reference_kl": ("reference_kl_sum", "tokens_sum"),
    "old_kl": ("old_kl_sum", "tokens_sum"),
    "behaviour_kl": ("behaviour_kl_sum", "tokens_sum"),
    "behaviour_gap": ("behaviour_gap_sum", "tokens_sum"),
    "ratio_mean": ("ratio_sum", "ratios_sum"),
    "clip_share": ("clipped_sum", "ratios_sum"),
    "dual_clip_share": ("dual_clipped_sum", "ratios_sum"),
    "is_ratio_mean": ("is_ratio_sum", "is_ratios_sum"),
    "is_capped_share": ("is_capped_sum", "is_ratios_sum"),
}
"""Mean: sum and count it is made of."""

LOSSES = {"loss": "loss_sum", "policy_loss": "policy_loss_sum", "kl_loss": "kl_loss_sum"}
"""Name in a record: sum that is the loss of an optimizer step."""


def reduction(name: str) -> Literal["sum", "min", "max"]:
    """How two values of a metric of `token_loss` become one, which its name ends with."""
    if name.endswith("_min"):
        return "min"
    if name.endswith("_max"):
        return "max"
    assert name.endswith("_sum"), name
    return "sum"


def combine(parts: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Metrics of several micro-batches (all of one objective) as one."""
    combined: dict[str, Tensor] = {}
    for part in parts:
        for name, value in part.items():
            if name not in combined:
                combined[name] = value
                continue
            match reduction(name):
                case "sum":
                    combined[name] = combined[name] + value
                case "min":
                    combined[name] = torch.minimum(combined[name], value)
                case "max":
                    combined[name] = torch.maximum(combined[name], value)
    return combined


def summarize(combined: dict[str, Tensor], steps: int = 1) -> dict[str, float]:
    """Numbers for the record of one or several optimizer steps. A mean over nothing is left out."""
    record = {name: float(combined[key]) / steps for name, key in LOSSES.items() if key in combined}
    record["tokens"] = float(combined["tokens_sum"])
    for name, (total, count) in MEANS.items():
        if total in combined and combined[count] > 0:
            record[name] = float(combined[total] / combined[count])
    if "ratio_mean" in record:
        record |= {name: float(combined[name]) for name in ("ratio_min", "ratio_max")}
    return record
