"""Figures for TensorBoard: one event file for each iteration in `tensorboard/`, and for each evaluation below `eval/`.

Files are written whole, like all else: a restart adds no value twice, and a killed learner leaves no half record.
TensorBoard reads the files of a directory in the order of their names.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from empg.rundir import keys
from empg.rundir.evaluations import EvaluationResult
from empg.store.base import Store
from empg.tfevents import scalars_file


def mirror(store: Store, rows: Mapping[int, Mapping[str, Any]], results: Mapping[int, EvaluationResult]) -> None:
    """Write what is not there yet of the figures by iteration and of the results by policy version.

    Tags are `train/<figure>` and `eval/greedy`, `eval/average`. Figures without a value are left out.
    """
    written = set(store.children(keys.TENSORBOARD))
    for iteration, figures in rows.items():
        if keys.event_file(iteration) not in written:
            _write(store, keys.TENSORBOARD, iteration, "train", figures)
    written = set(store.children(keys.TENSORBOARD_EVAL))
    for policy, result in results.items():
        if keys.event_file(policy) not in written:
            accuracies = {"greedy": result.greedy, "average": result.average}
            _write(store, keys.TENSORBOARD_EVAL, policy, "eval", accuracies)


def _write(store: Store, prefix: str, step: int, group: str, figures: Mapping[str, Any]) -> None:
    scalars = {
        f"{group}/{name}": float(value)
        for name, value in figures.items()
        if isinstance(value, int | float) and math.isfinite(value) and name != "iteration"
    }
    store.put(f"{prefix}/{keys.event_file(step)}", scalars_file(step, time.time(), scalars))
