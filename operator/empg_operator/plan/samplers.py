"""How many samplers are wanted, and how their number is told."""

from __future__ import annotations

from dataclasses import dataclass

from empg.api.status import SamplerCount, Turn
from empg_operator.plan.situation import Situation
from empg_operator.plan.times import moment, stamp

COUNT_SECONDS = 15.0
"""Least time between two counts that differ in nothing but how far a rollout is."""


def replicas(situation: Situation, turn: Turn, *, stopped: bool, released: bool) -> int:
    """Sampler pods that are wanted now.

    They come once the learner's pods run, so that a run never holds samplers alone while its learner finds no place;
    but they stay while the learner is only restarted.

    Args:
        situation: what is there.
        turn: under `Alternate`, whose turn it is.
        stopped: the run is to hold no device.
        released: it gives back what it holds.
    """
    wanted = situation.spec.sampler.replicas
    if stopped or released:
        return 0
    if situation.alternate:
        return wanted if turn == "samplers" else 0
    job = situation.live
    given_up = job is not None and job.attempt <= situation.status.judged_attempt
    there = situation.samplers.wanted > 0 and not given_up
    return wanted if there or (job is not None and job.all_ready and not given_up) else 0


@dataclass(frozen=True)
class Counted:
    """What the status says of the samplers."""

    count: SamplerCount
    again: float | None = None
    """When to count again although nothing happens."""


def count(situation: Situation, desired: int) -> Counted:
    """Count them, but not pod by pod: only whether there are any, whether all are ready, and the rest now and then."""
    before, pods = situation.status.samplers, situation.samplers
    now = SamplerCount(
        desired=desired,
        replicas=pods.replicas,
        ready=pods.ready,
        summary=f"{pods.ready}/{desired}",
        counted=before.counted,
    )
    if now == before:
        return Counted(before)
    counted = moment(before.counted)
    again = None if counted is None else counted + COUNT_SECONDS
    settled = pods.ready == pods.replicas == desired
    notable = now.desired != before.desired or (now.ready > 0) != (before.ready > 0) or settled
    if not notable and again is not None and counted is not None and counted <= situation.now < again:
        return Counted(before, again)
    return Counted(now.model_copy(update={"counted": stamp(situation.now)}))
