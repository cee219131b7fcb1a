"""Heartbeats of samplers, `samplers/<id>.json`, and who is dead by them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pydantic import Field

from empg.rundir import keys, records
from empg.rundir.plan import Record
from empg.store.base import KeyMissing, Store

LOAD_LEASES = 20
"""Leases for which loading another policy counts as progress."""


class SamplerRecord(Record):
    """What a sampler says about itself. Written before its first claim, and then every few seconds."""

    id: str
    incarnation: str
    """Of the process: new whenever the sampler starts, even under the same id."""
    counter: int = Field(ge=0)
    """Rises with every record."""
    progress: int = Field(ge=0)
    """Rises only when an engine step or a grade finished; what leases are judged by."""
    policy: int | None
    """Version that the engine holds."""
    loading: int | None = None
    """Version that is being loaded."""
    asleep: bool = False
    """The engine has given its GPU memory up until the learner has trained."""
    units: int = Field(0, ge=0)
    """Units committed by this incarnation."""
    tokens_per_second: float = Field(0.0, ge=0)
    """Generated lately."""


def write_record(store: Store, record: SamplerRecord) -> None:
    """Publish a heartbeat; each id has a single writer."""
    store.put(keys.sampler_key(record.id), records.encode(record))


def read_record(store: Store, sampler: str) -> SamplerRecord | None:
    """The record of one sampler, None if it has none. CorruptRecord if the file is not its own."""
    key = keys.sampler_key(sampler)
    try:
        record = records.read(store, key, SamplerRecord)
    except KeyMissing:
        return None
    if record.id != sampler:
        raise records.CorruptRecord(key, f"is the record of sampler {record.id!r}; remove it")
    return record


def read_records(store: Store) -> list[SamplerRecord]:
    """All records, by id."""
    names = [name.removesuffix(".json") for name in store.children(keys.SAMPLERS) if name.endswith(".json")]
    return [record for name in names if (record := read_record(store, name)) is not None]


@dataclass
class _Seen:
    incarnation: str
    progress: int
    moved: float
    counter: int
    beat: float
    beaten: bool
    """Whether a heartbeat was written since we first looked."""
    loading: int | None
    load_began: float


class Liveness:
    """Judges claims by what one process saw of the heartbeats, on its own monotonic clock.

    Call `observe` several times per lease. A holder is dead when its progress stood still for a lease between our
    looks, so one that is looked at rarely is judged late, never early. One that loads another policy makes progress by
    its heartbeats for a while: a large policy takes longer than a lease.
    """

    def __init__(self, lease_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.lease_seconds = lease_seconds
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        self._missed: dict[str, float] = {}
        """When we first missed the record of a sampler."""
        self._claims: dict[str, float] = {}
        """When we first saw a claim: an idle sampler's progress stood still before it claimed."""

    def observe(self, records: Iterable[SamplerRecord]) -> None:
        """Take note of records just read."""
        now = self._clock()
        for record in records:
            self._missed.pop(record.id, None)
            seen = self._seen.get(record.id)
            if seen is None or seen.incarnation != record.incarnation:
                new = seen is not None
                self._seen[record.id] = _Seen(
                    record.incarnation, record.progress, now, record.counter, now, new, record.loading, now
                )
                continue
            if seen.loading != record.loading:
                seen.loading, seen.load_began = record.loading, now
            loads = record.loading is not None and now - seen.load_began < LOAD_LEASES * self.lease_seconds
            if seen.progress != record.progress or (loads and seen.counter != record.counter):
                seen.progress, seen.moved = record.progress, now
            if seen.counter != record.counter:
                seen.counter, seen.beat, seen.beaten = record.counter, now, True

    def dead(self, holder_id: str, holder_incarnation: str, claim: str | None = None) -> bool:
        """Whether a claim of this process may be taken over; `claim` is its key.

        True when its progress stood still for a lease since we first saw that value and the claim, when its id shows
        another incarnation, or when we have been missing its record for a lease.
        """
        now = self._clock()
        seen = self._seen.get(holder_id)
        if seen is not None and seen.incarnation != holder_incarnation:
            return True
        since = self._missed.setdefault(holder_id, now) if seen is None else seen.moved
        if claim is not None:
            since = max(since, self._claims.setdefault(claim, now))
        return now - since >= self.lease_seconds

    def forget(self, claims: Iterable[str]) -> None:
        """Drop what is remembered of claims that matter no longer."""
        for claim in claims:
            self._claims.pop(claim, None)

    def silent(self, sampler: str) -> bool:
        """Whether no new heartbeat of the sampler was seen for a lease, working or not."""
        seen = self._seen.get(sampler)
        if seen is None:
            return self.dead(sampler, "")
        return self._clock() - seen.beat >= self.lease_seconds

    def beating(self, sampler: str) -> bool:
        """Whether a heartbeat of the sampler was written within the last lease, and while we looked."""
        seen = self._seen.get(sampler)
        return seen is not None and seen.beaten and not self.silent(sampler)
