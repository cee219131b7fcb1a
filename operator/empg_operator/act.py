"""Does to one run's objects what a plan says, and puts what the API server answers into the cache at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from empg_operator import names
from empg_operator.answers import Answers, lasting
from empg_operator.api import ABSENT, WEBHOOK_AWAY, Api, ApiError
from empg_operator.cache import Cache, RunKey
from empg_operator.conditions import cut
from empg_operator.decision import Event, Manifest, Observed, Place, Plan, Reference
from empg_operator.events import Recorder
from empg_operator.kinds import JOB, POD, POD_MONITOR, by_name
from empg_operator.ownership import owner
from empg_operator.queue import TryLaterError

_OTHERS_STATUS = ("progress", "recent", "sampled")
"""Keys of a run's status that learner and samplers write."""
_STATUS = "status"
_QUOTED_CHARACTERS = 350
"""Most of what the API server says of a refusal; the rest of a condition's message is for whom and what to do."""
_REMEDY = "Delete it, or give the run another name."
_REMEDIES = {"PersistentVolumeClaim": "Name it in spec.storage.claimName of another run, or delete it."}


@dataclass(frozen=True)
class Changed:
    """What became of the children."""

    any: bool
    """Whether anything was written."""
    refused: Mapping[Place, str]
    """Why children could not be made or changed."""
    denied: bool
    """Whether we have no right to one of them."""
    unknown: frozenset[str]
    """Kinds that the cluster does not have any more."""
    complete: bool
    """Whether all was made that was to be created; what the plan says of the run holds only then."""


class _NotOursError(Exception):
    """An object has the name of a child and is none of this run's."""


class Actor:
    """Acts on the run that was observed."""

    def __init__(
        self,
        key: RunKey,
        observed: Observed,
        api: Api,
        cache: Cache,
        recorder: Recorder,
        answers: Answers,
        wake: Callable[[RunKey], None],
    ) -> None:
        """`wake` is called with other runs that a new status concerns."""
        self._key = key
        self._run = observed.run
        self._children = observed.children
        self._api = api
        self._cache = cache
        self._recorder = recorder
        self._answers = answers
        self._wake = wake

    async def change_children(self, plan: Plan) -> Changed:
        """Apply, create and delete, in this order. A child that is refused, as a claim that can't grow, is left as it
        is; a creation that is refused keeps all after it waiting.

        ApiError: the API server was not reached, or the namespace goes; nothing more is done.
        TryLaterError: an object of an earlier run of this name is in the way.
        """
        changed = bool(plan.create or plan.delete)
        refused: dict[Place, str] = {}
        denied, unknown = False, set[str]()
        for manifest in plan.apply:
            try:
                changed |= await self._apply(manifest)
            except (ApiError, _NotOursError) as error:
                if await self._is_unknown(manifest["kind"], error):
                    unknown.add(manifest["kind"])
                    continue
                refused[_place(manifest)] = await self._tell(manifest, error)
                denied |= _is_denial(error)
        for manifest in plan.create:
            try:
                await self._create(manifest)
            except (ApiError, _NotOursError) as error:
                refused[_place(manifest)] = await self._tell(manifest, error)
                return Changed(changed, refused, denied or _is_denial(error), frozenset(unknown), complete=False)
        for reference in plan.delete:
            await self._delete(reference)
        return Changed(changed, refused, denied, frozenset(unknown), complete=True)

    async def write_status(self, status: Manifest) -> Manifest | None:
        """Make this our part of the run's status, unless it is; the run as it is then, or None if it is gone."""
        assert not any(name in status for name in _OTHERS_STATUS), f"{self._key}: {sorted(status)} is not all ours"
        status = _without_nulls(status)
        present = _ours(self._run.get("status", {}))
        if present == status or self._answers.is_vain(_STATUS, status, present):
            return self._run
        answer = await self._api.apply_status(self._run, status)
        if answer:
            self._answers.note(_STATUS, status, _ours(answer["status"]))
            for key in self._cache.put(answer) - {self._key}:
                self._wake(key)
        return answer

    async def _find(self, kind: str, name: str) -> Manifest | None:
        """An object of this run that was not observed.

        TryLaterError: it is an earlier run's, which the garbage collector removes sooner or later. _NotOursError: it is
        no run's at all; what others made is not taken over.
        """
        found = await self._api.get(by_name(kind), self._key.namespace, name)
        if found is None:
            return None
        its_owner, labels = owner(found), found["metadata"].get("labels", {})
        if its_owner not in (None, self._run["metadata"]["uid"]):
            raise TryLaterError("unavailable", f"{kind} {name} of an earlier run of this name is still there")
        if its_owner is None and labels.get(names.RUN_LABEL) != self._key.name:
            raise _NotOursError(f"it exists, and not because of this run. {_REMEDIES.get(kind, _REMEDY)}")
        return found

    async def _apply(self, manifest: Manifest) -> bool:
        kind, name = _place(manifest)
        present = self._children.get((kind, name)) or await self._find(kind, name)
        if present and self._answers.is_vain(f"{kind}/{name}", manifest, lasting(present)):
            return False
        answer = await self._api.apply(manifest)
        self._answers.note(f"{kind}/{name}", manifest, lasting(answer))
        self._cache.put(answer)
        return True

    async def _tell(self, manifest: Manifest, error: ApiError | _NotOursError) -> str:
        """Tell the user what is refused and why; what was told. ApiError, the same: it is no refusal, or the namespace
        goes."""
        said = str(error)
        if isinstance(error, ApiError):
            # A binding is not found where its role was refused.
            role_lacks = error.code == ABSENT and manifest["kind"] == "RoleBinding"
            if not (error.is_refusal or role_lacks) or error.namespace_ends:
                raise error
            remedy = "Change the run, or the policy or quota that refuses it."
            if WEBHOOK_AWAY in error.message:
                remedy = "It is tried again; look at the webhook's pods."
            said = f"{cut(error.message, _QUOTED_CHARACTERS)}. {remedy}"
        text = f"{' '.join(_place(manifest))}: {said}"
        await self._recorder.tell(self._run, Event("Warning", "ApplyFailed", text))
        return text

    async def _is_unknown(self, kind: str, error: ApiError | _NotOursError) -> bool:
        """Whether the cluster has lost a kind that it can do without; a namespace that is gone is told the same way."""
        absent = isinstance(error, ApiError) and error.code == ABSENT and kind == POD_MONITOR.name
        return absent and not await self._api.serves(POD_MONITOR)

    async def _create(self, manifest: Manifest) -> None:
        kind, name = _place(manifest)
        created = await self._api.create(manifest)
        if created:
            self._cache.put(created)
            return
        found = await self._find(kind, name)
        if found and found["metadata"].get("labels", {}).get(names.RUN_LABEL) != self._key.name:
            if kind != JOB.name:
                raise _NotOursError(f"it has lost its label {names.RUN_LABEL}. Delete it, or put the label back.")
            # An attempt that is written down nowhere yet: without the label no pass would ever see it.
            found = await self._api.apply(_relabelled(manifest, found))
        if found:
            self._cache.put(found)

    async def _delete(self, reference: Reference) -> None:
        left = await self._api.delete(reference, self._key.namespace)
        self._answers.forget(f"{reference.kind}/{reference.name}")
        if reference.kind == POD.name:
            return
        if left:
            self._cache.put(left)
        else:
            self._drop(reference.kind, reference.name)

    def _drop(self, kind: str, name: str) -> None:
        """Take an object out of the cache that the API server has no longer."""
        known = self._cache.children(self._key).get((kind, name))
        if known:
            self._cache.remove(known)


def _place(manifest: Manifest) -> Place:
    return manifest["kind"], manifest["metadata"]["name"]


def _relabelled(wanted: Manifest, found: Manifest) -> Manifest:
    """What gives the Job that was found, and no other of its name, the labels that it is known by; it may be of another
    revision by now."""
    about = wanted["metadata"]
    labels = {name: value for name, value in about["labels"].items() if name != names.REVISION_LABEL}
    same = {"name": about["name"], "namespace": about["namespace"], "uid": found["metadata"]["uid"]}
    return {"apiVersion": wanted["apiVersion"], "kind": wanted["kind"], "metadata": {**same, "labels": labels}}


def _is_denial(error: ApiError | _NotOursError) -> bool:
    return isinstance(error, ApiError) and error.is_denial


def _ours(status: Manifest) -> dict[str, Any]:
    return {name: value for name, value in status.items() if name not in _OTHERS_STATUS}


def _without_nulls(value: Any) -> Any:
    """JSON data without null, which schemas refuse where a key may be absent."""
    if isinstance(value, dict):
        return {name: _without_nulls(part) for name, part in value.items() if part is not None}
    if isinstance(value, list | tuple):
        return [_without_nulls(part) for part in value]
    return value
