"""Evaluations of policies: collected when their units are complete, whatever the learner is doing meanwhile.

Everything here runs on rank 0.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from empg.api.run import RunSpec
from empg.planner import evaluation_due, plan_evaluation
from empg.rundir.evaluations import EvaluationResult, read_results, write_result
from empg.rundir.heartbeat import Liveness
from empg.rundir.plan import Plan
from empg.rundir.plans import create_plan, planned, read_plans
from empg.store.base import Store
from empg.tasks.source import Task
from empg.verdict import Verdict
from empg_trainer.rollouts import Rollout, UnitWatch, sealed_rollout

logger = logging.getLogger(__name__)


class Evaluations:
    """All evaluations of a run, planned and finished."""

    def __init__(self, store: Store, uid: str, task: Task, liveness: Liveness) -> None:
        self._store = store
        self._uid = uid
        self._task = task
        self._liveness = liveness
        self.results = read_results(store)
        self._open = {policy: self._watch(policy) for policy in planned(store, "eval") if policy not in self.results}

    @property
    def outstanding(self) -> list[int]:
        """Policies whose evaluation is planned and not finished."""
        return sorted(self._open)

    @property
    def best(self) -> int | None:
        """Policy with the best greedy accuracy, the oldest of equals."""
        scored = {policy: result.greedy for policy, result in self.results.items() if result.greedy is not None}
        return min(scored, key=lambda policy: (-scored[policy], policy), default=None)

    def plan(self, spec: RunSpec, policy: int, last: bool) -> None:
        """Plan what is lacking of the evaluation of a policy if it is due. `last`: no further one will come."""
        due = evaluation_due(spec, policy) or (last and spec.evaluation.prompts > 0)
        if not due or not self._task.heldout or policy in self.results:
            return
        planned = {plan.round for plan in self._open[policy].plans} if policy in self._open else set()
        lacking = [plan for plan in plan_evaluation(spec, self._uid, policy, self._task) if plan.round not in planned]
        for plan in lacking:
            create_plan(self._store, plan)
        if lacking:
            self._open[policy] = self._watch(policy)

    def collect(self) -> None:
        """Record the evaluations whose units are complete."""
        for policy in self.outstanding:
            watch = self._open[policy]
            rollout = sealed_rollout(self._store, watch.plans)
            if rollout is None:
                watch.look()
                if not watch.complete:
                    continue
                rollout = watch.close()
            self._record(score(policy, watch.plans, rollout))

    def give_up(self) -> None:
        """Record the outstanding evaluations as missing; samplers then leave them alone."""
        for policy in self.outstanding:
            watch = self._open[policy]
            logger.warning("evaluation of policy %d is missing %d units", policy, watch.total - watch.settled)
            self._record(score(policy, watch.plans, watch.close(missing=True)))

    def progress(self) -> tuple[int, int]:
        """Units settled, and all units, of the outstanding evaluations."""
        watches = self._open.values()
        return sum(watch.settled for watch in watches), sum(watch.total for watch in watches)

    @property
    def watches(self) -> list[UnitWatch]:
        """Those of the outstanding evaluations."""
        return list(self._open.values())

    @property
    def greedy(self) -> dict[int, float | None]:
        """Greedy accuracy by policy; None for an evaluation that is missing."""
        return {policy: result.greedy for policy, result in sorted(self.results.items())}

    def _watch(self, policy: int) -> UnitWatch:
        return UnitWatch(self._store, read_plans(self._store, "eval", policy), self._liveness)

    def _record(self, result: EvaluationResult) -> None:
        write_result(self._store, result)
        self.results[result.policy] = result
        del self._open[result.policy]
        logger.info("policy %d: greedy accuracy %s", result.policy, result.greedy)
        if result.ungraded:
            logger.warning(
                "policy %d: %d held-out answers were not graded and count as not right", result.policy, result.ungraded
            )


def score(policy: int, plans: Sequence[Plan], rollout: Rollout) -> EvaluationResult:
    """Accuracy in the greedy round and in the sampled one, over all answers that were asked for."""
    rounds = {unit.name: plan.round for plan in plans for unit in plan.units}
    asked: Counter[int] = Counter()
    for plan in plans:
        asked[plan.round] += plan.samples * sum(len(unit.prompts) for unit in plan.units)
    graded = Counter(rounds[row.unit] for row in rollout.rows if row.verdict.trains)
    right = Counter(rounds[row.unit] for row in rollout.rows if row.verdict is Verdict.CORRECT)

    def accuracy(number: int) -> float | None:
        return None if rollout.seal.missing or not graded[number] else right[number] / asked[number]

    return EvaluationResult(
        policy=policy,
        greedy=accuracy(0),
        average=accuracy(1),
        prompts=graded[0],
        ungraded=asked.total() - graded.total(),
        missing=rollout.seal.missing,
    )
