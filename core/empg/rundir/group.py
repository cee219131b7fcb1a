"""Groups of files that appear together: policies, training states, data snapshots.

Files lie under a prefix that is unique to the attempt; `<prefix>/MANIFEST.json`, created last, names one attempt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from pydantic import Field, JsonValue

from empg.rundir import keys, records
from empg.rundir.identity import read_identity
from empg.rundir.owner import LearnerOwner
from empg.rundir.plan import Record
from empg.store.base import KeyExists, KeyMissing, Store, StoreError, checked


class CorruptGroup(records.CorruptFile):
    """A manifest or a file it names is damaged, missing or of another run."""


class FileEntry(Record):
    """Size in bytes and SHA-256 of a file."""

    size: int = Field(ge=0)
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> FileEntry:
        return cls(size=len(data), sha256=hashlib.sha256(data).hexdigest())


class Manifest(Record):
    """What a group consists of."""

    run: str
    spec_digest: str
    prefix: str
    attempt: str
    files: dict[str, FileEntry]
    """By name below `<prefix>/<attempt>/`."""
    meta: dict[str, JsonValue]


def publish(
    store: Store,
    prefix: str,
    attempt: str,
    files: Iterable[tuple[str, bytes]],
    meta: Mapping[str, JsonValue],
    check: Callable[[], None],
) -> Manifest:
    """Write a group and make it visible. One that is there already wins and is returned; `files` is then not read.

    `check` raises if we may publish no longer (`LearnerOwner.check`); it is called just before the manifest is created.
    Of files that can't all be written none stays.
    `attempt` must be unique to the caller (`LearnerOwner.attempt`).
    """
    if (found := read_manifest(store, prefix)) is not None:
        return found
    try:
        entries = {name: write_file(store, prefix, attempt, name, data) for name, data in files}
    except StoreError:
        # On a full volume the next attempt needs the room.
        for key in store.list(f"{prefix}/{attempt}"):
            store.delete(key)
        raise
    return create_manifest(store, prefix, attempt, entries, meta, check)


def write_file(store: Store, prefix: str, attempt: str, name: str, data: bytes) -> FileEntry:
    """Write one file of an attempt, for groups whose files several processes write."""
    store.put(f"{prefix}/{attempt}/{name}", data)
    return FileEntry.of(data)


def create_manifest(
    store: Store,
    prefix: str,
    attempt: str,
    files: Mapping[str, FileEntry],
    meta: Mapping[str, JsonValue],
    check: Callable[[], None],
) -> Manifest:
    """Make an attempt whose files are all written visible; an existing manifest wins and is returned."""
    identity = read_identity(store)
    manifest = Manifest(
        run=identity.uid,
        spec_digest=identity.spec_digest,
        prefix=prefix,
        attempt=attempt,
        files=dict(files),
        meta=dict(meta),
    )
    check()
    try:
        store.create(keys.group_manifest(prefix), records.encode(manifest))
        return manifest
    except KeyExists:
        found = read_manifest(store, prefix)
    assert found is not None, "manifests are removed by the learner alone"
    return found


def read_manifest(store: Store, prefix: str) -> Manifest | None:
    """The manifest of a group, None if it was not published. CorruptGroup if it is damaged or another's."""
    key = keys.group_manifest(prefix)
    try:
        manifest = records.read(store, key, Manifest)
    except KeyMissing:
        return None
    except records.CorruptRecord as error:
        raise CorruptGroup(key, error.reason) from error
    if manifest.prefix != prefix:
        raise CorruptGroup(key, f"is the manifest of {manifest.prefix}; remove it")
    if (run := read_identity(store).uid) != manifest.run:
        raise CorruptGroup(key, f"is of run {manifest.run}, the directory of {run}; remove it")
    return manifest


def read_file(store: Store, prefix: str, manifest: Manifest, name: str) -> bytes:
    """The content of a file of a group, verified. CorruptGroup if it is not what was published."""
    key = f"{prefix}/{manifest.attempt}/{name}"
    if (entry := manifest.files.get(name)) is None:
        raise CorruptGroup(keys.group_manifest(prefix), f"names no file {name}")
    try:
        data = store.get(key)
    except KeyMissing as error:
        raise CorruptGroup(key, "is missing") from error
    if (found := FileEntry.of(data)) != entry:
        raise CorruptGroup(key, f"differs from its manifest: {found.size} bytes, {entry.size} published")
    return data


def group_dir(store: Store, prefix: str, manifest: Manifest) -> Path:
    """A local directory with the group's files, unverified."""
    return store.local(checked(f"{prefix}/{manifest.attempt}"))


def publish_policy(
    store: Store,
    owner: LearnerOwner,
    version: int,
    files: Iterable[tuple[str, bytes]],
    meta: Mapping[str, JsonValue],
) -> Manifest:
    """Publish a policy (Hugging Face files). One that is there already wins. Fenced if another learner took over."""
    return publish(store, keys.policy_prefix(version), owner.attempt(), files, meta, owner.check)


def publish_state(
    store: Store,
    owner: LearnerOwner,
    iteration: int,
    files: Iterable[tuple[str, bytes]],
    meta: Mapping[str, JsonValue],
) -> Manifest:
    """Publish the training state with which iteration `iteration` starts."""
    return publish(store, keys.state_prefix(iteration), owner.attempt(), files, meta, owner.check)


def policies(store: Store) -> list[int]:
    """Published versions, ascending."""
    return published(store, keys.POLICIES)


def newest_policy(store: Store) -> int | None:
    """The newest published version, None before the first."""
    return max(policies(store), default=None)


def states(store: Store) -> list[int]:
    """Iterations that have a training state to start from, ascending."""
    return published(store, keys.STATES)


def published(store: Store, parent: str) -> list[int]:
    """Numbers below `parent` that have a manifest, ascending."""
    numbers = [number for name in store.children(parent) if (number := keys.parse_number(name)) is not None]
    return sorted(n for n in numbers if "MANIFEST.json" in store.children(f"{parent}/{keys.number(n)}"))
