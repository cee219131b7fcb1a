"""Learning curves of a run directory as a PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.figure


def draw(rows: Sequence[dict[str, Any]], evaluations: dict[int, float], title: str, path: Path) -> None:
    """Mean reward and accuracy of each E-step, and held-out greedy accuracy of each evaluated policy."""
    figure = matplotlib.figure.Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.add_subplot()
    iterations = [row["iteration"] for row in rows]
    for key, label, colour in (("reward_mean", "reward, sampled", "C0"), ("accuracy", "accuracy, sampled", "C1")):
        values = [row.get(key) for row in rows]
        points = [(t, v) for t, v in zip(iterations, values, strict=True) if v is not None]
        if points:
            axes.plot(
                *zip(*points, strict=True), color=colour, alpha=0.35 if key == "reward_mean" else 0.7, label=label
            )
    if evaluations:
        axes.plot(list(evaluations), list(evaluations.values()), "o-", color="C2", label="accuracy, held out, greedy")
    axes.set_xlabel("policy version (E- and M-steps made)")
    axes.set_ylim(bottom=0)
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)
