"""Whose run directory it is, from the run's manifest."""

from __future__ import annotations

import uuid

from empg.api.run import EMPGRun, spec_digest
from empg.rundir import keys
from empg.rundir.identity import ForeignRun, Identity, prepare, read_identity
from empg.rundir.specs import immutable_edit
from empg.store.base import KeyMissing, Store


def prepare_directory(store: Store, run: EMPGRun) -> Identity:
    """Claim a new directory for the run, or recognise the run's own; ForeignRun when it belongs to another."""
    try:
        found = read_identity(store)
    except KeyMissing:
        found = None
    # A local run has no UID of its own: the directory knows who it is.
    uid = run.metadata.uid or (found.uid if found else str(uuid.uuid4()))
    identity = Identity(uid=uid, name=run.metadata.name, spec_digest=spec_digest(run.spec))
    if found and (found.uid, found.name) == (identity.uid, identity.name) and not run.spec.storage.adopt:
        field = immutable_edit(store, run.spec)
        if field:
            raise ForeignRun(
                f"{keys.RUN}: {field} is immutable and was changed since run {found.name!r} started here; change it "
                "back, use another directory, or set storage.adopt: true to continue what is there"
            )
    return prepare(store, identity, adopt=run.spec.storage.adopt)
