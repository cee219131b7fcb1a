"""What may go from the run directory, and its removal by the learner."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from empg.api.storage import RetentionSpec
from empg.rundir import keys
from empg.rundir.group import policies, read_manifest, states
from empg.rundir.heartbeat import Liveness, SamplerRecord, read_records
from empg.rundir.owner import LearnerOwner
from empg.rundir.plan import Plan
from empg.rundir.plans import planned, read_plans
from empg.store.base import Store

_CLOSED = ("seal.json", "result.json")
MOST_ROLLOUTS = 20
"""Iterations whose rollouts are removed at a time: the ranks wait meanwhile, and an edit may let go of thousands."""


@dataclass(frozen=True)
class Inventory:
    """What there is, and who needs what."""

    policies: tuple[int, ...]
    """Published versions."""
    states: tuple[int, ...]
    """Iterations with a training state."""
    sealed: tuple[int, ...] = ()
    """Sealed iterations whose rollout is there."""
    best: int | None = None
    """Version with the best greedy evaluation."""
    pinned: frozenset[int] = frozenset()
    """Versions that the learner itself reads, such as the reference policy."""
    held: frozenset[int] = frozenset()
    """Versions that live samplers hold or load."""
    bounds: tuple[tuple[int, int | None], ...] = ()
    """(min_policy, max_policy) of every open plan."""


@dataclass(frozen=True)
class Removal:
    """What goes, ascending."""

    policies: tuple[int, ...]
    states: tuple[int, ...]
    rollouts: tuple[int, ...]


def removable(inventory: Inventory, spec: RetentionSpec) -> Removal:
    """Everything that neither the spec nor anybody who works needs.

    A rollout is needed from the oldest training state that stays: a learner that starts from it trains on it again.
    """
    kept = set(sorted(inventory.policies)[-spec.policies :]) | inventory.pinned | inventory.held
    if spec.best and inventory.best is not None:
        kept.add(inventory.best)
    for oldest, newest in inventory.bounds:
        kept |= {oldest} if newest is None else set(range(oldest, newest + 1))
    every = {version for version in inventory.policies if spec.every and version % spec.every == 0}
    kept_states = sorted(inventory.states)[-spec.states :]
    needed = min(kept_states, default=0) - spec.rollouts if spec.rollouts else 0
    return Removal(
        policies=tuple(sorted(set(inventory.policies) - kept - every)),
        states=tuple(sorted(set(inventory.states) - set(kept_states))),
        rollouts=tuple(sorted(iteration for iteration in inventory.sealed if iteration < needed)),
    )


def garbage(
    attempts: Mapping[int, Collection[str]], manifests: Mapping[int, str], owner: int
) -> tuple[tuple[int, str], ...]:
    """(number, attempt) of what crashed learners left of numbered groups; `manifests` names the attempts that count.

    Beside a manifest every other attempt is garbage, since a manifest is never replaced. Without one, an attempt of an
    earlier owner is garbage once a newer group exists: nobody publishes an old one any more. A manifest can't appear
    later and name what was removed, but for that of a fenced learner that slept on its last step; its readers get
    CorruptGroup for a group that nobody looks for.
    """
    newest = max(manifests, default=-1)
    return tuple(
        (number, name)
        for number, names in sorted(attempts.items())
        for name in sorted(names)
        if (
            name != manifests[number]
            if number in manifests
            else number < newest and (keys.parse_number(name.split("-")[0]) or owner) < owner
        )
    )


def retain(
    store: Store,
    spec: RetentionSpec,
    owner: LearnerOwner,
    liveness: Liveness,
    best: int | None = None,
    pinned: Collection[int] = (),
) -> Removal:
    """Remove what may go, with the garbage of crashed processes and the records of samplers that fell silent.

    For the learner alone, between iterations: Fenced if it is no longer the owner.
    """
    owner.check()
    records = read_records(store)
    liveness.observe(records)
    silent = [record for record in records if liveness.silent(record.id)]
    live = [record for record in records if record not in silent]
    inventory = _inventory(store, spec, live, best, pinned)
    removal = removable(inventory, spec)
    for record in silent:
        store.delete(keys.sampler_key(record.id))
    removal = replace(removal, rollouts=removal.rollouts[:MOST_ROLLOUTS])
    for iteration in removal.rollouts:
        _remove_rollout(store, iteration)
    for prefix in [keys.policy_prefix(n) for n in removal.policies] + [keys.state_prefix(n) for n in removal.states]:
        store.delete(keys.group_manifest(prefix))  # First: without it the group does not exist.
        _remove(store, prefix)
    for parent, numbers in ((keys.POLICIES, policies(store)), (keys.STATES, states(store))):
        _remove_garbage(store, parent, numbers, owner.number)
    for name in store.children(keys.OWNERS):
        if (keys.parse_owner(name) or owner.number) < owner.number:
            store.delete(f"{keys.OWNERS}/{name}")
    for iteration in set(inventory.sealed) - set(removal.rollouts):
        if iteration >= min(inventory.states, default=0):
            store.sweep(keys.iteration_dir("rollout", iteration))
    for prefix in (keys.SAMPLERS, keys.METRICS, keys.TENSORBOARD, keys.TENSORBOARD_EVAL, "progress"):
        store.sweep(prefix)
    return removal


def _inventory(
    store: Store, spec: RetentionSpec, live: Collection[SamplerRecord], best: int | None, pinned: Collection[int]
) -> Inventory:
    held = {version for record in live for version in (record.policy, record.loading) if version is not None}
    plans: list[Plan] = []
    sealed = []
    # Where all rollouts stay, those before the oldest state are closed and of no interest; there may be thousands.
    since: dict[keys.Kind, int] = {"rollout": 0 if spec.rollouts else min(states(store), default=0), "eval": 0}
    for kind, first in since.items():
        for iteration in planned(store, kind, first):
            if any(name in _CLOSED for name in store.children(keys.iteration_dir(kind, iteration))):
                sealed += [iteration] if kind == "rollout" else []
            else:
                plans += read_plans(store, kind, iteration)
    return Inventory(
        policies=tuple(policies(store)),
        states=tuple(states(store)),
        sealed=tuple(sealed),
        best=best,
        pinned=frozenset(pinned),
        held=frozenset(held),
        bounds=tuple((plan.min_policy, plan.max_policy) for plan in plans),
    )


def _remove_rollout(store: Store, iteration: int) -> None:
    """The seal goes last, so that no sampler takes the emptied iteration for open work; before it the plan, by which an
    iteration is found again whose removal was interrupted."""
    prefix, seal = keys.iteration_dir("rollout", iteration), keys.seal_key("rollout", iteration)
    for key in sorted(store.list(prefix), key=lambda key: key.startswith(f"{prefix}/plan/")):
        if key != seal:
            store.delete(key)
    store.delete(seal)
    store.sweep(prefix)


def _remove_garbage(store: Store, parent: str, numbers: Collection[int], owner: int) -> None:
    manifests = {}
    for number in numbers:
        manifest = read_manifest(store, f"{parent}/{keys.number(number)}")
        assert manifest is not None, "groups are removed by the learner alone"
        manifests[number] = manifest.attempt
    attempts = {
        number: [name for name in store.children(f"{parent}/{keys.number(number)}") if name != "MANIFEST.json"]
        for number in (keys.parse_number(name) for name in store.children(parent))
        if number is not None
    }
    for number, name in garbage(attempts, manifests, owner):
        _remove(store, f"{parent}/{keys.number(number)}/{name}")


def _remove(store: Store, prefix: str) -> None:
    for key in store.list(prefix):
        store.delete(key)
    store.sweep(prefix)
