"""Learning curves of a run directory as a PNG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.figure


def draw(rows: Sequence[Mapping[str, Any]], evaluations: Mapping[int, float], title: str, path: Path) -> None:
    """Mean reward of each E-step; below it, its accuracy, and that of evaluated policies on held-out prompts."""
    figure = matplotlib.figure.Figure(figsize=(8, 6), layout="constrained")
    above, below = figure.subplots(2, sharex=True)
    above.plot(*_points(rows, "reward_mean"), color="C0")
    above.set_ylabel("mean reward")
    below.plot(*_points(rows, "accuracy"), color="C1", alpha=0.7, label="sampled")
    if evaluations:
        below.plot(list(evaluations), list(evaluations.values()), "o-", color="C2", label="held out, greedy")
    below.set_ylabel("accuracy")
    below.set_ylim(0, 1)
    below.legend(loc="lower right")
    below.set_xlabel("policy version (E- and M-steps made)")
    for axes in (above, below):
        axes.grid(alpha=0.3)
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def _points(rows: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    """Iterations that have a figure, and the figures."""
    known = [(row["iteration"], row[key]) for row in rows if row.get(key) is not None]
    return [iteration for iteration, _ in known], [figure for _, figure in known]
