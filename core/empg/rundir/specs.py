"""The spec that an iteration works with, fixed at its start: `spec/<t>.json`."""

from __future__ import annotations

from empg.api.run import RunSpec, immutable_difference, spec_digest
from empg.rundir import keys, records
from empg.rundir.identity import read_identity
from empg.store.base import KeyExists, Store


def write_spec(store: Store, iteration: int, spec: RunSpec) -> RunSpec:
    """Fix the spec of an iteration. One that is there already wins and is returned."""
    try:
        store.create(keys.spec_key(iteration), records.encode(spec))
        return spec
    except KeyExists:
        return read_spec(store, iteration)


def read_spec(store: Store, iteration: int) -> RunSpec:
    """The spec of an iteration. KeyMissing if it was not fixed yet."""
    return records.read(store, keys.spec_key(iteration), RunSpec)


def newest_spec(store: Store) -> tuple[int, RunSpec] | None:
    """The newest iteration with a spec, and the spec; None before the first."""
    numbers = [number for name in store.children(keys.SPECS) if (number := keys.parse_number(name)) is not None]
    return (max(numbers), read_spec(store, max(numbers))) if numbers else None


def immutable_edit(store: Store, spec: RunSpec) -> str | None:
    """The immutable field in which a spec is not what the directory was started with; None if it fits.

    KeyMissing if the directory belongs to nobody yet.
    """
    if spec_digest(spec) == read_identity(store).spec_digest:
        return None
    newest = newest_spec(store)
    path = immutable_difference(newest[1], spec) if newest else None
    return path or "a field of spec"
