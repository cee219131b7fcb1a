"""Does to one run's objects what a plan says, and puts what the API server answers into the cache at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from empg_operator.answers import Answers, lasting
from empg_operator.api import Api, ApiError
from empg_operator.cache import Cache, RunKey
from empg_operator.decision import Event, Manifest, Observed, Plan, Reference
from empg_operator.events import Recorder
from empg_operator.kinds import POD, by_name
from empg_operator.ownership import owner
from empg_operator.queue import TryLaterError

_OTHERS_STATUS = ("progress", "recent", "sampled")
"""Keys of a run's status that learner and samplers write."""
_STATUS = "status"


@dataclass(frozen=True)
class Changed:
    """What became of the children."""

    any: bool
    """Whether anything was written."""
    refused: ApiError | None
    """The first refusal of an apply, if there was one."""


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
        """``wake`` is called with other runs that a new status concerns."""
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
        is, and keeps neither the others nor the status waiting.

        ApiError: the API server was not reached, or refused what can't be left out; all after it is.
        TryLaterError: an object of an earlier run of this name is in the way.
        """
        places = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in (*plan.apply, *plan.create)}
        if places:
            for place in sorted(places & self._strangers()):
                await self._let_go(*place)
        changed, refused = bool(plan.create or plan.delete), None
        for manifest in plan.apply:
            try:
                changed |= await self._apply(manifest)
            except ApiError as error:
                await self._tell(manifest, error)
                refused = refused or error
        for manifest in plan.create:
            try:
                await self._create(manifest)
            except ApiError as error:
                await self._tell(manifest, error)
                raise
        for reference in plan.delete:
            await self._delete(reference)
        return Changed(changed, refused)

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

    def _strangers(self) -> set[tuple[str, str]]:
        """Objects of an earlier run of this name that were not yet seen to be gone."""
        return set(self._cache.children(self._key)) - set(self._children)

    async def _let_go(self, kind: str, name: str) -> None:
        """Make sure that an earlier run's object is gone: the garbage collector removes it sooner or later."""
        found = await self._api.get(by_name(kind), self._key.namespace, name)
        if found and owner(found) not in (None, self._run["metadata"]["uid"]):
            raise TryLaterError("unavailable", f"{kind} {name} of an earlier run of this name is still there")
        if found:
            self._cache.put(found)
        else:
            self._drop(kind, name)

    async def _apply(self, manifest: Manifest) -> bool:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        present = self._children.get((kind, name))
        if present and self._answers.is_vain(f"{kind}/{name}", manifest, lasting(present)):
            return False
        answer = await self._api.apply(manifest)
        self._answers.note(f"{kind}/{name}", manifest, lasting(answer))
        self._cache.put(answer)
        return True

    async def _tell(self, manifest: Manifest, error: ApiError) -> None:
        """Tell the user what is refused and why. ApiError, the same: it is no refusal, or the namespace
        goes."""
        if not error.is_refusal or error.namespace_ends:
            raise error
        what = f"{manifest['kind']} {manifest['metadata']['name']}"
        text = f"{what}: {error.message}. Change the run, or the policy or quota that refuses it."
        await self._recorder.tell(self._run, Event("Warning", "ApplyFailed", text))

    async def _create(self, manifest: Manifest) -> None:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        created = await self._api.create(manifest)
        if created:
            self._cache.put(created)
        else:
            await self._let_go(kind, name)

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


def _ours(status: Manifest) -> dict[str, Any]:
    return {name: value for name, value in status.items() if name not in _OTHERS_STATUS}


def _without_nulls(value: Any) -> Any:
    """JSON data without null, which schemas refuse where a key may be absent."""
    if isinstance(value, dict):
        return {name: _without_nulls(part) for name, part in value.items() if part is not None}
    if isinstance(value, list | tuple):
        return [_without_nulls(part) for part in value]
    return value
