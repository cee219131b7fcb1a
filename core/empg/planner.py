"""Plans of iterations and evaluations: pure functions of the spec, the task and the iteration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from empg.api.run import RunSpec
from empg.objective import Objective
from empg.rundir.plan import Plan, PlannedPrompt, Sampling, Unit
from empg.tasks.order import prompt_indices
from empg.tasks.source import Task


def plan_rollout(spec: RunSpec, uid: str, iteration: int, task: Task, before: Plan | None) -> Plan:
    """Round 0 of iteration `iteration`: `em.promptsPerIteration` prompts, cut into units.

    They follow those of the plan of the iteration `before` (None: it is the first), whatever edits there were. Where an
    epoch of a small task ends inside the iteration a prompt may come twice; each occurrence is a prompt of its own
    (`<id>#2`), with its own answers.
    """
    first = before.end if before else 0
    indices = prompt_indices(spec.em.seed, first, spec.em.prompts_per_iteration, task.train.size)
    return Plan(
        run=uid,
        kind="rollout",
        iteration=iteration,
        round=0,
        first=first,
        min_policy=max(0, iteration - spec.em.max_staleness),
        seed=spec.em.seed,
        samples=spec.em.samples_per_prompt,
        attempts=spec.em.unit_attempts,
        sampling=Sampling(
            temperature=spec.sampler.temperature,
            top_p=spec.sampler.top_p,
            top_k=spec.sampler.top_k,
            max_tokens=spec.sampler.max_tokens,
            stop=spec.sampler.stop,
        ),
        grader=spec.task.grader,
        task=spec.task.name,
        units=_units(0, _told_apart([task.train.prompt(index) for index in indices]), spec.em.prompts_per_unit),
    )


def trainable(spec: RunSpec, plans: Sequence[Plan], earlier: Iterable[RunSpec]) -> RunSpec | None:
    """The spec, if its objective can be trained on the answers of the plans of an iteration.

    Plans may be older than an edit of the objective. Then it is the spec with what the first of the `earlier` ones that
    fits said of objective and sampling; None if none does.
    """
    if all(_fits(spec.objective.resolve(), plan) for plan in plans):
        return spec
    for former in earlier:
        if all(_fits(former.objective.resolve(), plan) for plan in plans):
            sampling = {"top_p": former.sampler.top_p, "top_k": former.sampler.top_k}
            changes = {
                "objective": former.objective,
                "sampler": spec.sampler.model_copy(update=sampling),
                "em": spec.em.model_copy(update={"samples_per_prompt": former.em.samples_per_prompt}),
            }
            return spec.model_copy(update=changes)
    return None


def _fits(objective: Objective, plan: Plan) -> bool:
    whole = plan.sampling.top_p == 1 and plan.sampling.top_k == 0
    return (whole or not objective.uses_ratio) and (plan.samples >= 2 or not objective.needs_group)


def plan_evaluation(spec: RunSpec, uid: str, policy: int, task: Task) -> tuple[Plan, ...]:
    """Evaluation of one policy on the held-out problems: round 0 greedy, round 1 avg@k where asked for."""
    rounds = [(1, 0.0)]
    if spec.evaluation.samples:
        rounds.append((spec.evaluation.samples, spec.evaluation.temperature))
    return tuple(
        Plan(
            run=uid,
            kind="eval",
            iteration=policy,
            round=number,
            min_policy=policy,
            max_policy=policy,
            seed=spec.em.seed,
            samples=samples,
            attempts=spec.em.unit_attempts,
            sampling=Sampling(
                temperature=temperature,
                top_p=1.0,
                top_k=0,
                max_tokens=spec.sampler.max_tokens,
                stop=spec.sampler.stop,
            ),
            grader=spec.task.grader,
            task=spec.task.name,
            units=_units(number, task.heldout, spec.evaluation.prompts_per_unit),
        )
        for number, (samples, temperature) in enumerate(rounds)
    )


def evaluation_due(spec: RunSpec, policy: int) -> bool:
    """Whether this policy version is evaluated: the first, every nth and the last."""
    if spec.evaluation.prompts == 0:
        return False
    every = spec.evaluation.every
    return policy in (0, spec.em.iterations) or (every > 0 and policy % every == 0)


def _told_apart(prompts: Sequence[PlannedPrompt]) -> list[PlannedPrompt]:
    seen: Counter[str] = Counter()
    different = []
    for prompt in prompts:
        seen[prompt.prompt_id] += 1
        number = seen[prompt.prompt_id]
        name = prompt.prompt_id if number == 1 else f"{prompt.prompt_id}#{number}"
        different.append(prompt.model_copy(update={"prompt_id": name}))
    return different


def _units(number: int, prompts: Sequence[PlannedPrompt], size: int) -> tuple[Unit, ...]:
    return tuple(
        Unit(name=f"{number:02d}-{start // size:04d}", prompts=tuple(prompts[start : start + size]))
        for start in range(0, len(prompts), size)
    )
