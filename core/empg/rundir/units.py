"""Finished units, `<kind>/<t>/units/<unit>.<n>.parquet`: commit, read back, reject."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

from empg.rundir import keys, records
from empg.rundir.plan import Plan, Record, Unit
from empg.store.base import KeyExists, KeyMissing, Store
from empg.trajectory import Trajectory, from_parquet, to_parquet


class CorruptUnit(records.CorruptFile):
    """A unit file that can't be used: missing, damaged, incomplete, foreign or too stale. Reject it."""


class Reject(Record):
    """Content of `rejects/<unit>.<n>`."""

    reason: str


def commit(store: Store, plan: Plan, unit: str, attempt: int, rows: Sequence[Trajectory]) -> bool:
    """Publish a finished unit. False if another commit of the attempt exists; ValueError for rows that don't fit.

    StorageFull leaves nothing behind: call again (`empg.store.base.retry_when_full`).
    """
    key = keys.unit_key(plan.kind, plan.iteration, unit, attempt)
    if reason := mismatch(plan, unit, rows):
        raise ValueError(f"{key}: {reason}")
    try:
        store.create(key, to_parquet(rows))
    except KeyExists:
        return False
    return True


def read_unit(store: Store, plan: Plan, unit: str, attempt: int) -> tuple[list[Trajectory], str]:
    """The rows of a committed unit in plan order, and the SHA-256 of its file. CorruptUnit says what is wrong."""
    key = keys.unit_key(plan.kind, plan.iteration, unit, attempt)
    try:
        data = store.get(key)
    except KeyMissing as error:
        raise CorruptUnit(key, "is missing") from error
    try:
        rows = from_parquet(data)
    except ValueError as error:
        raise CorruptUnit(key, str(error)) from error
    if reason := mismatch(plan, unit, rows):
        raise CorruptUnit(key, reason)
    place = {prompt.prompt_id: index for index, prompt in enumerate(find_unit(plan, unit).prompts)}
    rows.sort(key=lambda row: (place[row.prompt_id], row.sample))
    return rows, hashlib.sha256(data).hexdigest()


def reject(store: Store, plan: Plan, unit: str, attempt: int, reason: str) -> None:
    """Refuse a commit for good, which reopens the unit. The first reason stays."""
    key = keys.reject_key(plan.kind, plan.iteration, unit, attempt)
    try:
        store.create(key, records.encode(Reject(reason=reason)))
    except KeyExists:
        records.read(store, key, Reject)


def find_unit(plan: Plan, name: str) -> Unit:
    """The unit of a plan by its name. ValueError if the plan has none."""
    for unit in plan.units:
        if unit.name == name:
            return unit
    raise ValueError(f"round {plan.round} of {plan.kind} {plan.iteration} has no unit {name!r}")


def mismatch(plan: Plan, unit: str, rows: Sequence[Trajectory]) -> str | None:
    """Why the rows are not the planned ones; None if they are, in any order."""
    prompts = {prompt.prompt_id: prompt for prompt in find_unit(plan, unit).prompts}
    for row in rows:
        for field, found, wanted in (
            ("run", row.run, plan.run),
            ("iteration", row.iteration, plan.iteration),
            ("unit", row.unit, unit),
        ):
            if found != wanted:
                return f"{field} is {found!r} where {wanted!r} belongs: the file is of another place"
        prompt = prompts.get(row.prompt_id)
        if prompt is None:
            return f"prompt {row.prompt_id!r} is not planned in this unit"
        if row.prompt_ids != prompt.prompt_ids:
            return f"prompt {row.prompt_id!r} has other tokens than planned"
        for version, _ in row.policy_versions:
            if version < plan.min_policy or (plan.max_policy is not None and version > plan.max_policy):
                admitted = f"{plan.min_policy} or later" if plan.max_policy is None else f"{plan.max_policy} alone"
                return f"prompt {row.prompt_id!r} was sampled with policy {version}, admitted is {admitted}"
    counts = Counter((row.prompt_id, row.sample) for row in rows)
    wanted_samples = {(prompt, sample) for prompt in prompts for sample in range(plan.samples)}
    if lacking := wanted_samples - counts.keys():
        return f"{len(lacking)} of {len(wanted_samples)} answers are lacking, as {min(lacking)}"
    if len(rows) != len(wanted_samples):
        return f"{len(rows)} rows where {len(wanted_samples)} belong"
    return None
