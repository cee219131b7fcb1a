"""Which learner may publish: `learner/owner.<n>`, the highest n."""

from __future__ import annotations

import secrets

from pydantic import Field

from empg.rundir import keys, records
from empg.rundir.plan import Record
from empg.store.base import KeyExists, Store


class Fenced(Exception):
    """Another learner took the run directory over. Stop without publishing anything (exit code 75)."""


class OwnerRecord(Record):
    """Content of `learner/owner.<n>`."""

    name: str
    """Who it is, for people: host or pod and process."""
    token: str
    counter: int = Field(0, ge=0)
    """Rises with every heartbeat."""


class LearnerOwner:
    """One learner's ownership of the run directory. It ends when a later learner acquires it."""

    def __init__(self, store: Store, number: int, record: OwnerRecord) -> None:
        self.number = number
        self._store = store
        self._record = record

    @classmethod
    def acquire(cls, store: Store, name: str) -> LearnerOwner:
        """Become the owner; whoever was it is fenced from now on."""
        record = OwnerRecord(name=name, token=secrets.token_hex(8))
        while True:
            number = newest_owner(store) + 1
            try:
                store.create(keys.owner_key(number), records.encode(record))
            except KeyExists:
                continue
            return cls(store, number, record)

    def heartbeat(self) -> None:
        """Say that the learner lives. Call it from one thread."""
        self._record = self._record.model_copy(update={"counter": self._record.counter + 1})
        self._store.put(keys.owner_key(self.number), records.encode(self._record))

    def check(self) -> None:
        """Fenced if the directory has a later owner."""
        if (newest := newest_owner(self._store)) > self.number:
            other = records.read(self._store, keys.owner_key(newest), OwnerRecord)
            raise Fenced(f"{keys.owner_key(newest)}: learner {other.name!r} took over from us, owner {self.number}")

    def attempt(self) -> str:
        """A new name for an attempt to publish a group; nobody else makes the same."""
        return f"{keys.number(self.number)}-{secrets.token_hex(4)}"


def newest_owner(store: Store) -> int:
    """Number of the present owner, 0 before the first."""
    return max((n for name in store.children(keys.OWNERS) if (n := keys.parse_owner(name)) is not None), default=0)
