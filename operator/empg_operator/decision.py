"""What planning takes and gives: plain values between the code that looks, that decides and that acts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Manifest = Mapping[str, Any]
"""An object of the API as JSON data."""

Place = tuple[str, str]
"""Kind and name of a child."""
Propagation = Literal["Background", "Foreground"]


@dataclass(frozen=True)
class Diagnosis:
    """What a look at a run's pods, claim and their events showed; lists as the API server gave them."""

    taken: float
    """Seconds since the epoch."""
    pods: tuple[Manifest, ...] = ()
    claims: tuple[Manifest, ...] = ()
    events: tuple[Manifest, ...] = ()


@dataclass(frozen=True)
class Blocked:
    """Why a child can't be made or changed."""

    message: str
    until: float
    """It is not tried again before, in seconds since the epoch."""
    manifest: Manifest | None = None
    """What was refused; where something else is to be applied by now, that is tried at once."""


@dataclass(frozen=True)
class Observed:
    """A run and its surroundings at one moment."""

    run: Manifest
    """The EMPGRun as the API server has it."""
    children: Mapping[Place, Manifest] = field(default_factory=dict)
    """Children by kind and name: Deployments, Jobs, ControllerRevisions, ConfigMaps, … that carry the run's label and
    that the run owns, and its claim; and those that were asked for by name."""
    absent: Collection[Place] = frozenset()
    """Children that were asked for by name and are not there."""
    parent: Manifest | None = None
    """The EMPGRun that `model.fromRun.name` names, if it exists."""
    diagnosis: Diagnosis | None = None
    """The newest look, if one was asked for."""
    refusals: Mapping[str, str] = field(default_factory=dict)
    """Name of a pod template's revision: why the API server refuses such a pod; empty text: it takes it. A refusal is
    soon forgotten, as its cause may lie outside the template."""
    blocked: Mapping[Place, Blocked] = field(default_factory=dict)
    """Children that were refused when they were applied or created last."""
    pod_monitors: bool = False
    """Whether the cluster has the kind PodMonitor."""


@dataclass(frozen=True)
class Reference:
    """An object to delete."""

    kind: str
    name: str
    uid: str | None = None
    """Delete only the object of this UID."""
    propagation: Propagation = "Background"


@dataclass(frozen=True)
class Event:
    """Something to tell the user in the run's events."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class Plan:
    """What to do now. Everything is idempotent; it is done in the order of the fields."""

    find: tuple[Place, ...] = ()
    """Children to ask the API server for by name; they come in `Observed.children` or `Observed.absent`, and
    planning is repeated before anything else is done."""
    try_pods: Mapping[str, Manifest] = field(default_factory=dict)
    """Pods to create in a dry run, by the name of their template's revision; the answer comes as `Observed.refusals`,
    and planning is repeated before anything else is done."""
    diagnose: bool = False
    """Take a `Diagnosis` and plan again before anything else is done."""
    apply: tuple[Manifest, ...] = ()
    """Server-side apply, forced, under our field manager."""
    create: tuple[Manifest, ...] = ()
    """Create; one that exists is left as it is."""
    delete: tuple[Reference, ...] = ()
    status: Manifest | None = None
    """All of the status that is ours; None: leave it. It is a function of the status that was observed, so it is
    written under the `resourceVersion` that was observed, and planning is repeated on a conflict."""
    events: tuple[Event, ...] = ()
    """Sent after the status was written."""
    requeue_after: float | None = None
    """Seconds after which to plan again although nothing changed."""
