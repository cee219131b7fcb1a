"""What to say of a run: its conditions and its phase."""

from __future__ import annotations

from dataclasses import dataclass

from empg.api.status import Condition, Lineage, Phase, SamplerCount
from empg_operator import names
from empg_operator.causes import STARTING, Cause, cause
from empg_operator.conditions import MESSAGE_CHARACTERS, Statement, cut, set_conditions
from empg_operator.plan.attempts import Judged, Tally
from empg_operator.plan.course import Course
from empg_operator.plan.deadlines import trouble
from empg_operator.plan.jobs import LearnerJob
from empg_operator.plan.lineage import Missing
from empg_operator.plan.situation import Situation
from empg_operator.plan.templates import Template
from empg_operator.plan.times import stamp, stamp_after

_PHASES: dict[str, Phase] = {
    "starting": "Starting",
    "sampling": "Sampling",
    "learning": "Learning",
    "publishing": "Learning",
    "evaluating": "Evaluating",
    "done": "Evaluating",
}


_READY_CHARACTERS = 250
"""Longest message of `Ready`: what keeps a run from it is told in full by the condition that it follows from."""


@dataclass(frozen=True)
class Picture:
    """What the policies made of a situation."""

    situation: Situation
    course: Course
    lineage: Lineage | Missing | None
    templates: tuple[Template, Template]
    """Of samplers and learner."""
    samplers: SamplerCount
    started: int | None
    """Attempt that is started now."""


def conditions(picture: Picture) -> tuple[Condition, ...]:
    """All conditions of the run. A cause that is not looked after any more stays until something else is known."""
    situation = picture.situation
    now, generation = stamp(situation.now), situation.generation
    halt = _halt(picture)
    said = [_accepted(picture), *_ends(picture)]
    if (learner := Statement("LearnerReady", "False", *halt) if halt else _learner(picture)) is not None:
        said.append(learner)
    said.append(Statement("SamplersReady", "False", *halt) if halt else _samplers(picture))
    so_far = set_conditions(situation.status.conditions, said, generation, now)
    parts = {condition.type: condition for condition in so_far}
    return set_conditions(so_far, [_ready(picture, halt, parts)], generation, now)


def phase(picture: Picture) -> Phase:
    """What the run does, in a word."""
    situation, job, outcome = picture.situation, picture.situation.live, picture.course.outcome
    if outcome is not None:
        return outcome.kind
    if situation.spec.suspend:
        return "Suspended"
    if situation.queued or picture.course.clock.waiting_for == "queue":
        return "Queued"
    if picture.course.turn == "samplers":
        return "Sampling"
    fails = job is not None and job.ending is not None and not job.ending.complete and _stops(situation, job)
    if job is not None and (job.all_ready or job.ending) and not fails:
        reported = _PHASES[situation.progress.phase] if situation.progress else "Starting"
        # A learner that takes turns leaves the sampling to the samplers in a moment.
        return "Learning" if reported == "Sampling" and situation.alternate else reported
    starting = picture.started or (job.attempt if job is not None and not job.ending else None)
    if starting is None and situation.attempt == 0:
        return "Pending"
    return "Starting" if starting == 1 or situation.alternate else "Restarting"


def _stops(situation: Situation, job: LearnerJob) -> bool:
    """Whether an attempt is about to stop for so long that it is told, before it is known how it ended."""
    return job.stops_from is not None and job.stops_from <= situation.now


def _halt(picture: Picture) -> tuple[str, str] | None:
    """Why neither learner nor samplers are wanted."""
    situation = picture.situation
    if picture.course.outcome is not None:
        return picture.course.outcome.kind, "The run has ended."
    if situation.spec.suspend:
        return "Suspended", "The run is suspended; set spec.suspend to false to go on."
    if isinstance(picture.lineage, Missing):
        return picture.lineage.reason, picture.lineage.message
    if situation.queued:
        queue = situation.spec.queue_name
        return "Queued", f"Queue {queue!r} has not admitted the learner yet." if queue else "Its Job is suspended."
    if picture.course.released:
        return "Released", (
            "Only a part of the pods came to run within deadlines.holdSeconds, so all were given back for a while. "
            + (trouble(situation).rstrip() or "Free devices, or ask for fewer.")
        )
    return None


def _accepted(picture: Picture) -> Statement:
    refused = next((template.refusal for template in picture.templates if template.refusal), None)
    if refused is not None:
        return Statement("Accepted", "False", *refused)
    blocked = picture.situation.observed.blocked
    if blocked:
        return Statement("Accepted", "False", "ApplyFailed", blocked[min(blocked)].message)
    return Statement("Accepted", "True", "Accepted", "The spec is valid.")


def _ends(picture: Picture) -> tuple[Statement, ...]:
    suspended, outcome = picture.situation.spec.suspend and picture.course.outcome is None, picture.course.outcome
    going = ("IterationsRaised", "em.iterations was raised.") if picture.course.reopened else ("Running", "")
    statements = [
        Statement("Suspended", "True", "Suspended", "All devices are given back.")
        if suspended
        else Statement("Suspended", "False", "NotSuspended", "")
    ]
    for kind in ("Complete", "Failed"):
        if outcome is not None and outcome.kind == kind:
            statements.append(Statement(kind, "True", outcome.reason, outcome.message))
        else:
            statements.append(Statement(kind, "False", *(going if outcome is None else (outcome.kind, ""))))
    return tuple(statements)


def _learner(picture: Picture) -> Statement | None:
    """None: there is nothing new to say."""
    situation, job, tally = picture.situation, picture.situation.live, picture.course.tally
    if tally.ends and picture.course.turn != "samplers" and picture.started is None:
        return _ended(tally, tally.ends[-1], picture.course.last_words)
    if job is not None and job.ending:
        return _stopping(job) if _stops(situation, job) else None
    if job is not None and job.attempt > tally.judged:
        if job.all_ready:
            return Statement("LearnerReady", "True", "Running", f"The pods of attempt {job.attempt} run.")
        look = situation.observed.diagnosis
        found = cause(look, "learner", job.attempt) if look is not None else STARTING
        return Statement("LearnerReady", "False", found.reason, found.message)
    if picture.course.turn == "samplers":
        return Statement("LearnerReady", "False", "WaitingForSamplers", "The samplers have the devices.")
    if picture.started is not None:
        return Statement("LearnerReady", "False", STARTING.reason, STARTING.message)
    job_name = names.learner_job(situation.name, situation.next_attempt)
    if (blocked := situation.blocked("Job", job_name)) is not None:
        return Statement("LearnerReady", "False", "ApplyFailed", blocked.message)
    if situation.attempt == 0:
        refused = next((each.refusal for each in picture.templates if each.role == "learner" and each.refusal), None)
        return Statement("LearnerReady", "False", *(refused or (STARTING.reason, STARTING.message)))
    return None


def _stopping(job: LearnerJob) -> Statement:
    until = "" if job.due is None else f" by {stamp_after(job.due)}"
    said = f"Attempt {job.attempt} ends, and its last pods stop; it counts as ended if no node tells so{until}."
    return Statement("LearnerReady", "False", "Stopping", said)


def _ended(tally: Tally, judged: Judged, last_words: Cause | None) -> Statement:
    said = last_words or Cause(judged.end, judged.message)
    later = "" if tally.not_before is None else f". The next attempt starts at {stamp_after(tally.not_before)}."
    which = f"Attempt {judged.attempt}: "
    why = cut(said.message.rstrip("."), MESSAGE_CHARACTERS - len(which) - len(later))
    return Statement("LearnerReady", "False", said.reason, f"{which}{why}{later}")


def _samplers(picture: Picture) -> Statement:
    count, situation = picture.samplers, picture.situation
    if situation.spec.sampler.replicas == 0:
        return Statement("SamplersReady", "False", "NoSamplers", "spec.sampler.replicas is 0; raise it to go on.")
    if count.desired == 0:
        return Statement("SamplersReady", "False", "WaitingForLearner", "Samplers start when the learner's pods run.")
    if count.ready >= count.desired:
        return Statement("SamplersReady", "True", "Running", "All samplers are ready.")
    if count.ready > 0:
        return Statement(
            "SamplersReady", "True", "PartlyReady", f"{count.ready} of {count.desired} samplers are ready."
        )
    refusal = picture.templates[0].refusal
    if refusal is not None and not situation.samplers.exist:
        return Statement("SamplersReady", "False", *refusal)
    look = situation.observed.diagnosis
    found = cause(look, "sampler") if look is not None else STARTING
    return Statement("SamplersReady", "False", found.reason, found.message)


def _ready(picture: Picture, halt: tuple[str, str] | None, parts: dict[str, Condition]) -> Statement:
    if halt is not None:
        return Statement("Ready", "False", *halt)
    wanted = ["LearnerReady", "SamplersReady"]
    if picture.situation.alternate:
        wanted = ["SamplersReady" if picture.course.turn == "samplers" else "LearnerReady"]
    for kind in wanted:
        part = parts.get(kind)
        if part is None:
            return Statement("Ready", "False", STARTING.reason, STARTING.message)
        if part.status != "True":
            return Statement("Ready", "False", part.reason, cut(part.message, _READY_CHARACTERS))
    return Statement("Ready", "True", "Running", "Learner and samplers run.")
