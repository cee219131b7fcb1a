"""Figures for TensorBoard: one event file for each iteration in `tensorboard/`, and for each evaluation below `eval/`.

Files are written whole, like all else: a restart adds no value twice, and a killed learner leaves no half record.
TensorBoard reads the files of a directory in the order of their names.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Mapping
from typing import Any

from empg.rundir import keys
from empg.rundir.evaluations import EvaluationResult
from empg.store.base import Store


class EventFiles:
    """Event files of a run; what is there already is found at the first use."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._written: dict[str, set[str]] = {}

    def mirror(self, rows: Mapping[int, Mapping[str, Any]], results: Mapping[int, EvaluationResult]) -> None:
        """Write what is not there yet of the figures by iteration and of the results by policy version.

        Tags are `train/<figure>` and `eval/greedy`, `eval/average`. Figures without a value are left out.
        """
        for iteration, figures in rows.items():
            self._write(keys.TENSORBOARD, iteration, "train", figures)
        for policy, result in results.items():
            accuracies = {"greedy": result.greedy, "average": result.average}
            self._write(keys.TENSORBOARD_EVAL, policy, "eval", accuracies)

    def _write(self, prefix: str, step: int, group: str, figures: Mapping[str, Any]) -> None:
        name = keys.event_file(step)
        if prefix not in self._written:
            self._written[prefix] = set(self._store.children(prefix))
        if name in self._written[prefix]:
            return
        scalars = {
            f"{group}/{name}": float(value)
            for name, value in figures.items()
            if isinstance(value, int | float) and math.isfinite(value) and name != "iteration"
        }
        self._store.put(f"{prefix}/{name}", scalars_file(step, time.time(), scalars))
        self._written[prefix].add(name)


def scalars_file(step: int, wall_time: float, scalars: Mapping[str, float]) -> bytes:
    """A whole event file with the values of some tags at one step; `wall_time` in seconds since the epoch."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
    data = io.BytesIO()
    records = RecordWriter(data)
    for event in (
        Event(wall_time=wall_time, file_version="brain.Event:2"),
        Event(wall_time=wall_time, step=step, summary=Summary(value=values)),
    ):
        records.write(event.SerializeToString())
    return data.getvalue()
