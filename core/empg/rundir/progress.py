"""How far the run is, for people and the operator: `progress/learner.json`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from empg.rundir import keys, records
from empg.rundir.plan import Record
from empg.store.base import KeyMissing, Store

Phase = Literal["starting", "sampling", "learning", "publishing", "evaluating", "done"]


class Progress(Record):
    """What the learner is doing."""

    format: Literal[1] = 1
    attempt: int = Field(ge=0)
    """The learner's attempt number."""
    iteration: int = Field(ge=0)
    iterations: int = Field(ge=0)
    """Iterations to make in all."""
    phase: Phase
    policy: int | None = None
    """Newest published version."""
    units_done: int = Field(0, ge=0)
    units_total: int = Field(0, ge=0)
    detail: dict[str, JsonValue] = Field(default_factory=dict)
    """Figures of the iteration, such as reward mean, KL or sampler versions."""


def write_progress(store: Store, progress: Progress) -> None:
    store.put(keys.PROGRESS, records.encode(progress))


def read_progress(store: Store) -> Progress | None:
    """The newest progress; None before the learner's first."""
    try:
        return records.read(store, keys.PROGRESS, Progress)
    except KeyMissing:
        return None
