"""What the API server was last seen to have: the runs and all that carries their labels.

Objects are kept as compact JSON without `managedFields`, a fraction of the size of the parsed values, and are parsed
when a run is reconciled.
"""

from __future__ import annotations

import json
from collections import OrderedDict, defaultdict
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple, TypeVar

from empg_operator import names
from empg_operator.decision import Manifest
from empg_operator.kinds import RUN

_GRAVES = 4096
"""Deleted objects that are remembered, so that a late answer to an earlier write does not bring them back."""


class RunKey(NamedTuple):
    """A run, whether it exists or not."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class _Entry(NamedTuple):
    version: int
    run: str
    body: bytes


_Place = tuple[str, str]  # namespace, name
_Member = TypeVar("_Member")


class Cache:
    """Objects by kind, namespace and name, and by the run they belong to.

    An object is never replaced by an older one: events, lists and answers to our own writes come in any order. Resource
    versions are compared as numbers, which the API allows within a kind.
    """

    def __init__(self) -> None:
        self._kinds: defaultdict[str, dict[_Place, _Entry]] = defaultdict(dict)
        self._members: defaultdict[RunKey, set[tuple[str, str]]] = defaultdict(set)
        self._forks: defaultdict[RunKey, set[str]] = defaultdict(set)
        self._graves: OrderedDict[tuple[str, _Place], int] = OrderedDict()

    def put(self, manifest: Manifest) -> set[RunKey]:
        """Take an object in; the runs that this concerns: its own, and for a run those that are to start from it."""
        kind, about = manifest["kind"], manifest["metadata"]
        place = (about["namespace"], about["name"])
        version = int(about["resourceVersion"])
        old = self._kinds[kind].get(place)
        if version <= max(old.version if old else 0, self._graves.get((kind, place), 0)):
            return set()
        run = about["name"] if kind == RUN.name else about.get("labels", {}).get(names.RUN_LABEL)
        concerned = set()
        if old and (old.run != run or kind == RUN.name):
            concerned |= self._drop(kind, place)
        if run is not None:
            concerned |= self._add(kind, place, _Entry(version, run, _compact(manifest)))
        return concerned

    def remove(self, manifest: Manifest) -> set[RunKey]:
        """Take an object out that was deleted; its resource version is that of the deletion. As `put` else."""
        about = manifest["metadata"]
        return self.forget(manifest["kind"], about["namespace"], about["name"], int(about["resourceVersion"]))

    def forget(self, kind: str, namespace: str, name: str, version: int) -> set[RunKey]:
        """Take an object out that was gone at `version`; a newer one stays. As `put` else."""
        place = (namespace, name)
        old = self._kinds[kind].get(place)
        if old and old.version > version:
            return set()
        self._graves[kind, place] = max(version, self._graves.get((kind, place), 0))
        self._graves.move_to_end((kind, place))
        if len(self._graves) > _GRAVES:
            self._graves.popitem(last=False)
        return self._drop(kind, place) if old else set()

    def retain(self, kind: str, namespace: str | None, listed: Collection[_Place], version: int) -> set[RunKey]:
        """Forget what a whole list of `version` did not have; the runs that this concerns.

        `listed` are the (namespace, name) of the list of one namespace, or of all. What was put in after the list was
        taken stays.
        """
        absent = [
            place
            for place, entry in self._kinds[kind].items()
            if place not in listed and namespace in (None, place[0]) and entry.version <= version
        ]
        return {key for place in absent for key in self.forget(kind, *place, version)}

    def runs(self) -> Iterator[RunKey]:
        """The runs that exist."""
        return (RunKey(*place) for place in list(self._kinds[RUN.name]))

    def run(self, key: RunKey) -> dict[str, Any] | None:
        """A run, parsed."""
        entry = self._kinds[RUN.name].get((key.namespace, key.name))
        return json.loads(entry.body) if entry else None

    def children(self, key: RunKey) -> dict[tuple[str, str], Manifest]:
        """All that carries a run's label, by (kind, name), parsed; another run's of the same name among them."""
        members = sorted(self._members.get(key, ()))
        return {(kind, name): json.loads(self._kinds[kind][key.namespace, name].body) for kind, name in members}

    def sizes(self) -> dict[str, int]:
        """Number of objects by kind; may be asked from another thread."""
        return {kind: len(entries) for kind, entries in list(self._kinds.items())}

    def _add(self, kind: str, place: _Place, entry: _Entry) -> set[RunKey]:
        self._kinds[kind][place] = entry
        key = RunKey(place[0], entry.run)
        if kind != RUN.name:
            self._members[key].add((kind, place[1]))
            return {key}
        if parent := _parent(entry):
            self._forks[RunKey(place[0], parent)].add(entry.run)
        return {key, *self._forks_of(key)}

    def _drop(self, kind: str, place: _Place) -> set[RunKey]:
        entry = self._kinds[kind].pop(place)
        key = RunKey(place[0], entry.run)
        if kind != RUN.name:
            _discard(self._members, key, (kind, place[1]))
            return {key}
        if parent := _parent(entry):
            _discard(self._forks, RunKey(place[0], parent), entry.run)
        return {key, *self._forks_of(key)}

    def _forks_of(self, key: RunKey) -> Iterator[RunKey]:
        """Runs that are to start from this one, whether it exists or not."""
        return (RunKey(key.namespace, name) for name in self._forks.get(key, ()))


def _parent(run: _Entry) -> str | None:
    origin = json.loads(run.body)["spec"]["model"].get("fromRun") or {}
    return origin.get("name")


def _discard(index: dict[RunKey, set[_Member]], key: RunKey, member: _Member) -> None:
    index[key].discard(member)
    if not index[key]:
        del index[key]


def _compact(manifest: Manifest) -> bytes:
    about = {key: value for key, value in manifest["metadata"].items() if key != "managedFields"}
    return json.dumps({**manifest, "metadata": about}, separators=(",", ":")).encode()
