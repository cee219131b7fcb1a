"""From what was observed to what is to be done: the policies, one after the other.

Whoever acts may die between any two steps. So what can't be undone follows from what is written down: a pass that finds
that the run has ended, or goes on after its end, writes that and nothing else, and the next pass acts on it.
"""

from __future__ import annotations

import dataclasses

from empg.api.load import InvalidManifest
from empg.api.run import MANAGED_BY
from empg.api.status import Lineage
from empg_operator.conditions import Statement, set_conditions
from empg_operator.decision import Event, Observed, Plan
from empg_operator.names import Role
from empg_operator.plan import looks, templates
from empg_operator.plan.attempts import outdated, start, unwritten
from empg_operator.plan.children import changes
from empg_operator.plan.completion import children_expire
from empg_operator.plan.course import Course, course
from empg_operator.plan.explain import Picture
from empg_operator.plan.lineage import Missing, lineage
from empg_operator.plan.reading import read_status
from empg_operator.plan.samplers import count
from empg_operator.plan.situation import Situation, generation, survey
from empg_operator.plan.status import assemble, differs, ours
from empg_operator.plan.templates import Template
from empg_operator.plan.times import stamp
from empg_operator.plan.transitions import transitions, was
from empg_operator.plan.turns import cleared
from empg_operator.settings import Settings

PARENT_SECONDS = 30.0
"""Time between two searches for a parent that is missing."""
_PROBLEMS = 3


def plan(observed: Observed, settings: Settings, now: float) -> Plan:
    """What to do for a run now. Pure, and total over all that the API server lets in."""
    run = observed.run
    if (run.get("spec") or {}).get("managedBy", MANAGED_BY) != MANAGED_BY or run["metadata"].get("deletionTimestamp"):
        return Plan()
    try:
        situation = survey(observed, now)
    except InvalidManifest as error:
        return _refused(observed, error, now)
    return _decide(situation, settings)


def _decide(situation: Situation, settings: Settings) -> Plan:
    origin = lineage(situation)
    decided = course(situation, origin)
    if decided.tally.missing is not None:
        return Plan(find=(("Job", decided.tally.missing),))
    sampler, learner = (_template(situation, settings, decided, origin, role) for role in ("sampler", "learner"))
    if decided.outcome is None and outdated(situation, learner.revision if learner.refusal is None else None):
        decided = dataclasses.replace(decided, judged=situation.attempt)
    started = None
    if decided.running and not decided.only_write and decided.turn == "learner" and learner.template is not None:
        started = start(situation, decided.tally, decided.not_before, cleared=cleared(situation))
    counted = count(situation, decided.samplers)
    picture = Picture(situation, decided, origin, (sampler, learner), counted.count, started)
    status = assemble(picture)
    done = changes(situation, settings, decided, origin, sampler, learner, started)
    look = looks.look(situation, decided.tally, decided.turn, decided.clock, decided.samplers)
    due = [*decided.moments(), counted.again, look.again, sampler.again, learner.again]
    if (job := situation.live) is not None:
        due += [job.stops_from, job.due]
    due += [blocked.until for blocked in situation.observed.blocked.values()]
    if isinstance(origin, Missing):
        due.append(situation.now + PARENT_SECONDS)
    if decided.over:
        due.append(children_expire(situation))
    return Plan(
        try_pods=dict(each.try_pod for each in (sampler, learner) if each.try_pod),
        diagnose=look.now or decided.roll.look,
        apply=done.apply,
        create=done.create,
        delete=done.delete,
        status=ours(status) if differs(status, situation.observed.run) else None,
        events=transitions(picture, status),
        requeue_after=0.0 if decided.only_write or unwritten(situation) else _after(situation.now, due),
    )


def _template(
    situation: Situation, settings: Settings, decided: Course, origin: Lineage | Missing | None, role: Role
) -> Template:
    """A run that has ended, or that can't start yet, needs no new template."""
    if isinstance(origin, Missing) or decided.over or decided.only_write:
        return templates.former(situation, role)
    return templates.template(situation, settings, origin, role)


def _after(now: float, due: list[float | None]) -> float | None:
    return min((moment - now for moment in due if moment is not None and moment > now), default=None)


def _refused(observed: Observed, error: InvalidManifest, now: float) -> Plan:
    """A spec that can't be read: the run says so and is left as it is."""
    before = read_status(observed.run.get("status") or {})
    message = "; ".join(f"{problem.field}: {problem.message}" for problem in error.problems[:_PROBLEMS])
    said = [Statement(kind, "False", "InvalidSpec", message) for kind in ("Accepted", "Ready")]
    at = generation(observed.run)
    conditions = set_conditions(before.conditions, said, at, stamp(now))
    status = before.model_copy(update={"observed_generation": at, "conditions": conditions})
    if not differs(status, observed.run):
        return Plan()
    told = was(before, "Accepted") == "InvalidSpec"
    return Plan(status=ours(status), events=() if told else (Event("Warning", "InvalidSpec", message),))
