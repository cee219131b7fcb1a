"""What to apply, create and delete for a run that takes its course."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from empg.api.status import Lineage
from empg_operator import names
from empg_operator.builders.learner import learner_job
from empg_operator.builders.sampler import sampler_deployment
from empg_operator.decision import Manifest, Reference
from empg_operator.kinds import JOB
from empg_operator.plan import standing
from empg_operator.plan.attempts import obsolete
from empg_operator.plan.completion import children_expire
from empg_operator.plan.course import Course
from empg_operator.plan.lineage import Missing
from empg_operator.plan.situation import Situation
from empg_operator.plan.templates import Template, superseded
from empg_operator.settings import Settings


@dataclass(frozen=True)
class Changes:
    """Changes of children, in the order of the fields."""

    apply: tuple[Manifest, ...] = ()
    create: tuple[Manifest, ...] = ()
    delete: tuple[Reference, ...] = ()


def changes(
    situation: Situation,
    settings: Settings,
    course: Course,
    origin: Lineage | Missing | None,
    sampler: Template,
    learner: Template,
    started: int | None,
) -> Changes:
    """What brings the children to where the course of the run wants them.

    Args:
        situation: what is there.
        settings: of this operator.
        course: what was decided about the run.
        origin: its parent.
        sampler: pod template of the samplers.
        learner: pod template of the learner.
        started: attempt to start.
    """
    if course.only_write or isinstance(origin, Missing):
        return Changes()
    wanted = standing.desired(situation, settings, origin)
    expire = children_expire(situation) if course.over else None
    if expire is not None and expire <= situation.now:
        kept = standing.claim_repairs(situation, wanted)
        return Changes(
            apply=tuple(each for each in kept if not situation.held_back(each)), delete=standing.removals(situation)
        )
    deployment, gone = _deployment(situation, course, sampler)
    jobs = obsolete(situation, stop=situation.spec.suspend or course.over)
    revisions = (*superseded(situation.observed, sampler), *superseded(situation.observed, learner))
    repairs = (*standing.repairs(situation, wanted), *deployment, *_relabelled(situation))
    return Changes(
        apply=tuple(each for each in repairs if not situation.held_back(each)),
        create=(
            *(each.create for each in (sampler, learner) if each.create),
            *(_job(situation, learner, attempt) for attempt in (started,) if attempt is not None),
        ),
        delete=(
            *(Reference("Job", job.name, job.uid) for job in jobs),
            *gone,
            *((course.roll.delete,) if course.roll.delete else ()),
            *revisions,
            *standing.unwanted(situation, wanted),
        ),
    )


def _job(situation: Situation, learner: Template, attempt: int) -> Manifest:
    assert learner.template is not None, "an attempt is started with a template"
    return learner_job(situation.run, learner.template, attempt, learner.revision)


def _relabelled(situation: Situation) -> Iterator[Manifest]:
    """Jobs that lost labels, with nothing but these: without them no watch tells how they end. Those of the UID alone:
    one that is gone is not made."""
    for job in situation.jobs:
        labels = names.job_labels(situation.name, job.attempt)
        present = situation.observed.children["Job", job.name]["metadata"].get("labels") or {}
        if not labels.items() <= present.items():
            about = {"name": job.name, "namespace": situation.run.metadata.namespace, "uid": job.uid, "labels": labels}
            yield {"apiVersion": JOB.api_version, "kind": JOB.name, "metadata": about}


def _deployment(
    situation: Situation, course: Course, sampler: Template
) -> tuple[tuple[Manifest, ...], tuple[Reference, ...]]:
    """The Deployment to apply, or to delete: without a template it can't be scaled, only removed."""
    name = names.sampler_deployment(situation.name)
    observed = situation.observed.children.get(("Deployment", name))
    if sampler.template is None:
        if observed is None or course.samplers > 0:
            return (), ()
        return (), (Reference("Deployment", name, observed["metadata"].get("uid")),)
    if course.over and observed is None:
        return (), ()
    wanted = sampler_deployment(
        situation.run,
        sampler.template,
        course.samplers,
        sampler.revision,
        # A new run's first policy is 0: pods that say so need not be replaced when the learner tells of it.
        policy=(course.roll.policy or 0) if situation.spec.sampler.roll_strategy == "RollingUpdate" else None,
        attempt=_attempt(situation, course) if situation.alternate else None,
    )
    applied = standing.repair(wanted, observed)
    return () if applied is None else (applied,), ()


def _attempt(situation: Situation, course: Course) -> int:
    """Attempt whose units the samplers are for; while the learner has its turn, what was last."""
    return situation.attempt if course.turn == "samplers" else situation.status.sampled or 0
