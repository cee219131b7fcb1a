"""Results of evaluations, `eval/<policy>/result.json`, written by the learner when units are complete or overdue."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

from pydantic import Field

from empg.rundir import keys, records
from empg.rundir.plan import Record
from empg.rundir.plans import planned
from empg.store.base import KeyMissing, Store


class EvaluationResult(Record):
    """How one policy did on the held-out problems."""

    format: Literal[1] = 1
    policy: int = Field(ge=0)
    greedy: float | None = None
    """Greedy pass@1: share of all problems answered correctly. An answer that was not graded is not right, so that a
    failing grader never raises it. None: missing, or nothing was graded."""
    average: float | None = None
    """avg@k: mean over all problems and samples, likewise. None: not asked for, missing, or nothing was graded."""
    prompts: int = Field(ge=0)
    """Problems that were graded for `greedy`."""
    ungraded: int = Field(0, ge=0)
    """Answers of both that were not graded: the grader failed or ran out of time, or their unit is void."""
    missing: bool = False
    """The evaluation was not complete by its deadline."""


def result_key(policy: int) -> str:
    """Where the result of a policy is."""
    return f"{keys.iteration_dir('eval', policy)}/result.json"


def write_result(store: Store, result: EvaluationResult) -> None:
    """Record a result; a later one replaces it."""
    store.put(result_key(result.policy), records.encode(result))


def read_results(store: Store, but: Collection[int] = ()) -> dict[int, EvaluationResult]:
    """All results by policy version, ascending, without those of the policies `but`."""
    results = {}
    for policy in planned(store, "eval"):
        if policy in but:
            continue
        try:
            results[policy] = records.read(store, result_key(policy), EvaluationResult)
        except KeyMissing:
            continue
    return results


def greedy_accuracies(store: Store, known: Mapping[int, float] | None = None) -> dict[int, float]:
    """Greedy accuracy by policy version, ascending; missing evaluations are left out.

    `known` ones are not read again: a result with an accuracy is final.
    """
    found = dict(known or {})
    for policy, result in read_results(store, but=found).items():
        if result.greedy is not None:
            found[policy] = result.greedy
    return dict(sorted(found.items()))
