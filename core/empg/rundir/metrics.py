"""Figures of every iteration: `metrics/<t>.jsonl`, exactly one line of JSON each."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from empg.rundir import keys
from empg.rundir.records import CorruptRecord
from empg.store.base import KeyMissing, Store


def write_metrics(store: Store, iteration: int, record: Mapping[str, Any]) -> None:
    """Write the figures of an iteration, with `iteration` among them; a replayed iteration writes them again.

    JSON has no NaN and no infinity: such figures become null.
    """
    line = json.dumps(_finite({**record, "iteration": iteration}), ensure_ascii=False, allow_nan=False)
    store.put(keys.metrics_key(iteration), f"{line}\n".encode())


def read_metrics(store: Store, since: int = 0) -> list[dict[str, Any]]:
    """The figures of all iterations from `since` on, in order. CorruptRecord names a file that holds none."""
    wanted = sorted(number for number in _iterations(store) if number >= since)
    return [record for number in wanted if (record := _read(store, number)) is not None]


def newest_iteration(store: Store) -> int:
    """The newest finished iteration; -1 before the first."""
    return max(_iterations(store), default=-1)


def _iterations(store: Store) -> list[int]:
    return [number for name in store.children(keys.METRICS) if (number := keys.parse_number(name)) is not None]


def _read(store: Store, iteration: int) -> dict[str, Any] | None:
    key = keys.metrics_key(iteration)
    try:
        record = json.loads(store.get(key))
    except KeyMissing:
        return None
    except ValueError as error:
        raise CorruptRecord(key, f"no line of JSON ({error}); remove the file") from error
    if not isinstance(record, dict) or record.get("iteration") != iteration:
        raise CorruptRecord(key, f"not the figures of iteration {iteration}; remove the file")
    return record


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(name): _finite(below) for name, below in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(below) for below in value]
    return value
