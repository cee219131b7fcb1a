"""Finite tasks kept in the run directory, so that a restart needs neither data set nor hub.

A snapshot is a group below `data/`, named after what it was loaded from: the part of the task that is immutable, and
the number of held-out prompts.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from empg.api.task import TaskSpec
from empg.rundir import keys
from empg.rundir.group import CorruptGroup, Manifest, publish, read_file, read_manifest
from empg.rundir.owner import LearnerOwner
from empg.store.base import Store
from empg.tasks.load import load_task
from empg.tasks.problem import Chat, Encode, Problem
from empg.tasks.source import FiniteSource, Task

TRAIN, HELDOUT = "train.parquet", "heldout.parquet"

_SCHEMA = pa.schema([pa.field(name, pa.string(), nullable=False) for name in ("prompt_id", "prompt", "gold")])


def open_task(
    store: Store,
    owner: LearnerOwner,
    spec: TaskSpec,
    *,
    seed: int,
    heldout: int,
    base_dir: Path,
    encode: Encode,
    chat: Chat | None,
) -> Task:
    """The run's task: from its snapshot where there is one, else loaded (see `load_task`) and kept if it is finite."""
    kept = read_snapshot(store, spec, heldout, encode)
    if kept is not None:
        return kept
    task = load_task(spec, seed=seed, heldout=heldout, base_dir=base_dir, encode=encode, chat=chat)
    if isinstance(task.train, FiniteSource):
        write_snapshot(store, owner, spec, heldout, task)
    return task


def write_snapshot(store: Store, owner: LearnerOwner, spec: TaskSpec, heldout: int, task: Task) -> Manifest:
    """Keep a finite task. A snapshot that is there already wins. Fenced if another learner took over."""
    assert isinstance(task.train, FiniteSource), "an endless task is a function, not data"
    held = tuple(Problem(prompt.prompt_id, prompt.prompt, prompt.gold) for prompt in task.heldout)
    files = ((TRAIN, _to_parquet(task.train.problems)), (HELDOUT, _to_parquet(held)))
    return publish(store, snapshot_prefix(spec, heldout), owner.attempt(), files, dict(task.dropped), owner.check)


def read_snapshot(store: Store, spec: TaskSpec, heldout: int, encode: Encode) -> Task | None:
    """The task as it was kept, None if it was not. CorruptGroup if the snapshot is damaged."""
    prefix = snapshot_prefix(spec, heldout)
    manifest = read_manifest(store, prefix)
    if manifest is None:
        return None
    train, held = (_read(store, prefix, manifest, name) for name in (TRAIN, HELDOUT))
    dropped = {reason: count for reason, count in manifest.meta.items() if isinstance(count, int)}
    return Task(FiniteSource(train, encode), tuple(problem.planned(encode) for problem in held), dropped)


def snapshot_prefix(spec: TaskSpec, heldout: int) -> str:
    """Prefix of the group. The grader's fields may change while a run goes on; all others of a task may not."""
    loaded = f"{heldout}|{spec.model_dump_json(exclude={'grader'}, exclude_defaults=True)}"
    return f"{keys.DATA}/{hashlib.sha256(loaded.encode()).hexdigest()[:16]}"


def _to_parquet(problems: tuple[Problem, ...]) -> bytes:
    table = pa.table({name: [getattr(problem, name) for problem in problems] for name in _SCHEMA.names}, schema=_SCHEMA)
    sink = pa.BufferOutputStream()
    parquet.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return bytes(sink.getvalue().to_pybytes())


def _read(store: Store, prefix: str, manifest: Manifest, name: str) -> tuple[Problem, ...]:
    data = read_file(store, prefix, manifest, name)
    try:
        table = parquet.read_table(pa.BufferReader(data), page_checksum_verification=True)
        return tuple(Problem(**row) for row in table.select(_SCHEMA.names).to_pylist())
    except (pa.ArrowException, OSError, KeyError) as error:
        raise CorruptGroup(f"{prefix}/{manifest.attempt}/{name}", f"is no snapshot of problems: {error}") from error
