"""Whose directory this is: `run.json`."""

from __future__ import annotations

from empg.rundir import keys, records
from empg.rundir.plan import Record
from empg.store.base import KeyExists, Store


class Identity(Record):
    """The run that a directory belongs to."""

    uid: str
    """UID that every plan, trajectory and manifest in the directory carries."""
    name: str
    spec_digest: str
    """Of the immutable part of the spec."""


class ForeignRun(ValueError):
    """The directory belongs to another run, or to this one before an edit of what is immutable."""


def prepare(store: Store, identity: Identity, adopt: bool = False) -> Identity:
    """Take a new directory for the run, or recognise its own; what `run.json` says afterwards is returned.

    ForeignRun when another run owns it. With `adopt` that is accepted: the name and digest become ours and the UID
    stays that of the directory, so that everything in it remains valid.
    """
    try:
        store.create(keys.RUN, records.encode(identity))
        return identity
    except KeyExists:
        found = read_identity(store)
    if found == identity:
        return found
    if not adopt:
        what = (
            f"it belongs to run {found.name!r} (UID {found.uid})"
            if (found.uid, found.name) != (identity.uid, identity.name)
            else f"run {found.name!r} started here with other immutable fields of its spec"
        )
        raise ForeignRun(
            f"{keys.RUN}: {what}; use another directory, or set storage.adopt: true to continue what is there"
        )
    adopted = identity.model_copy(update={"uid": found.uid})
    store.put(keys.RUN, records.encode(adopted))
    return adopted


def read_identity(store: Store) -> Identity:
    """The directory's owner. KeyMissing if it has none yet."""
    return records.read(store, keys.RUN, Identity)
