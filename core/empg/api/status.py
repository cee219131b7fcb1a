"""`status` of an `EMPGRun`: what is written by whom. The CRD's schema of it is generated from here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from empg.api.base import Spec

Phase = Literal[
    "Pending",
    "Queued",
    "Starting",
    "Sampling",
    "Learning",
    "Evaluating",
    "Restarting",
    "Suspended",
    "Complete",
    "Failed",
]
"""What the run does, for people. Derived from everything else; nothing is decided by it."""

Turn = Literal["learner", "samplers"]
Time = Annotated[str, Field(max_length=32, json_schema_extra={"format": "date-time"})]
"""RFC 3339 with seconds, in UTC."""
Name = Annotated[str, Field(max_length=253)]
"""Name or UID of an object."""
Path = Annotated[str, Field(max_length=4096)]


class Whole(Spec):
    """An object that one writer says anew as a whole, so that the API server keeps no record of who wrote which part
    of it: such records would take as much room as what they are about."""

    model_config = ConfigDict(json_schema_extra={"x-kubernetes-map-type": "atomic"})


class Condition(Whole):
    """One statement about the run, as Kubernetes' API conventions have it."""

    type: str = Field(max_length=64)
    status: Literal["True", "False", "Unknown"]
    reason: str = Field(max_length=128)
    """One word in CamelCase: why the statement is as it is."""
    message: str = Field(max_length=1024)
    """The same for people, with what to do about it."""
    last_transition_time: Time
    """When `status` changed last."""
    observed_generation: int
    """Generation of the spec that this was said of."""


class SamplerCount(Whole):
    """Sampler pods."""

    desired: int = 0
    """Pods that are wanted now; 0 while the learner has the GPUs to itself or the run is suspended."""
    replicas: int = 0
    """Pods that exist."""
    ready: int = 0
    """Pods whose engine holds a policy."""
    summary: str = Field("0/0", max_length=32)
    """ready/desired, for the table that kubectl prints."""
    counted: Time | None = None
    """When they were counted; a rollout of many pods is not written down pod by pod."""


class Clock(Whole):
    """What the run waits for, and since when by the operator's clock; deadlines are measured by it."""

    waiting_for: Literal["pods", "queue", "sampling", "learning", "nothing"]
    """`queue`: no sampler is ready, and the queue has admitted none."""
    iteration: int = 0
    since: Time
    seconds: float = 0.0
    """Time that counts up to `since`: what earlier attempts took for the same step."""


class Step(Whole):
    """A step of the run, or a wait for pods, that was interrupted."""

    waiting_for: Literal["pods", "sampling", "learning"]
    iteration: int
    seconds: float
    """Time that it took so far."""


class Storage(Whole):
    """Where the run directory is."""

    claim_name: Name
    path: Path
    """Directory below the root of the claim."""


class Lineage(Whole):
    """The run whose policy this run started from."""

    run: Name
    uid: Name = ""
    claim_name: Name
    path: Path
    policy: int | None = None


class Revisions(Whole):
    """Frozen pod templates in use, by the names of their ControllerRevisions."""

    sampler: Name = ""
    learner: Name = ""


class PolicyCount(Spec):
    """Samplers that hold a version."""

    policy: int
    samplers: int


class Progress(Whole):
    """How far the learner is. Written by the learner alone, under the field manager `empg-learner`."""

    attempt: int
    """Number of the learner's attempt, as in the name of its Job."""
    iteration: int
    iterations: int
    phase: Literal["starting", "sampling", "learning", "publishing", "evaluating", "done"]
    policy_version: int | None = None
    units_done: int = 0
    units_total: int = 0
    reward: float | None = None
    """Mean reward of the newest complete iteration."""
    accuracy: float | None = None
    """Share of right answers in it."""
    evaluation: float | None = None
    """Greedy accuracy on held-out problems of the newest evaluated policy."""
    kl: float | None = None
    """Divergence of the learner from the behaviour policy in nats per token."""
    tokens_per_second: float | None = None
    staleness: float | None = None
    """Mean age of the sampling policy in versions."""
    sampler_versions: tuple[PolicyCount, ...] = Field((), max_length=16)
    laggards: tuple[Name, ...] = Field((), max_length=8)
    """Samplers, by pod name, that do not hold the newest policy; those with the oldest one first."""
    updated: Time
    """By the learner's clock."""


class Iteration(Spec):
    """One of the newest iterations."""

    iteration: int
    reward: float | None = None
    accuracy: float | None = None
    evaluation: float | None = None
    kl: float | None = None
    entropy: float | None = None
    seconds: float | None = None


class RunStatus(Spec):
    """The whole status. `progress` and `recent` are the learner's, `sampled` the samplers', the rest the operator's."""

    observed_generation: int = 0
    phase: Phase = "Pending"
    conditions: tuple[Condition, ...] = Field(
        (),
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
    attempt: int = 0
    """Number of the newest attempt of the learner; its Job carries it in its name."""
    restarts: int = 0
    """Crashes so far, as `spec.restarts.limit` counts them."""
    fruitless_restarts: int = 0
    """Crashes since an attempt made progress, which the backoff grows with."""
    uncharged_ends: int = 0
    """Other ends of attempts since one made progress; the backoff holds after some of them too."""
    attempt_start_time: Time | None = None
    """When the newest attempt was started."""
    attempt_iteration: int = 0
    """Iteration at which the newest attempt started."""
    judged_attempt: int = 0
    """Newest attempt whose end has been taken into account."""
    next_attempt_time: Time | None = None
    """No attempt is started before."""
    turn: Turn = "learner"
    """Under `rollStrategy: Alternate`, whose turn it is."""
    start_time: Time | None = None
    """When the run was taken up first."""
    active_seconds: float = 0.0
    """Time that counts against `deadlines.runSeconds` up to `active_since`."""
    active_since: Time | None = None
    completion_time: Time | None = None
    clock: Clock | None = None
    interrupted: tuple[Step, ...] | None = Field(None, max_length=3)
    """Steps and waits that were begun and not finished, and that do not go on now."""
    held_since: Time | None = None
    """Since when only a part of the pods that the run needs has devices."""
    releases: int = 0
    """Times that all was given back for that since an iteration was finished, which the pause grows with."""
    rolled_policy: int | None = None
    """Policy that all samplers were last asked to hold, or a newer one. The next one follows when they do."""
    roll_started: Time | None = None
    """Since when they are asked to; absent when they do."""
    laggard_deleted: Time | None = None
    """When a sampler pod was last deleted because it did not."""
    samplers: SamplerCount = Field(default_factory=SamplerCount)
    selector: str = Field("", max_length=1024)
    """Label selector of sampler pods, for the scale subresource."""
    revisions: Revisions = Field(default_factory=Revisions)
    storage: Storage | None = None
    lineage: Lineage | None = None
    progress: Progress | None = None
    recent: tuple[Iteration, ...] = Field((), max_length=5)
    sampled: int | None = None
    """Under `rollStrategy: Alternate`: the attempt whose planned units are all there. Written by samplers, under the
    field manager `empg-sampler`."""
