"""The end of a run: `final.json`. Where it exists, there is nothing left to do."""

from __future__ import annotations

from pydantic import Field

from empg.rundir import keys, records
from empg.rundir.plan import Record
from empg.store.base import KeyMissing, Store


class Final(Record):
    """What a finished run came to."""

    run: str
    iterations: int = Field(ge=0)
    policy: int = Field(ge=0)
    """The trained model's version."""
    evaluations: dict[int, float | None]
    """Greedy accuracy by policy version; None for an evaluation that met its deadline."""


def write_final(store: Store, final: Final) -> None:
    """Finish the run. A run that was given more iterations finishes again."""
    store.put(keys.FINAL, records.encode(final))


def read_final(store: Store) -> Final | None:
    """None while the run is not finished."""
    try:
        return records.read(store, keys.FINAL, Final)
    except KeyMissing:
        return None
