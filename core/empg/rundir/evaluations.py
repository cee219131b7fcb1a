"""Results of evaluations (`eval/<policy>/result.json`), written by the learner when the units are complete or overdue."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from empg.rundir.plan import Record
from empg.store.base import Store


class EvaluationResult(Record):
    """How one policy did on the held-out problems."""

    format: Literal[1] = 1
    policy: int = Field(ge=0)
    greedy: float | None = None
    """Greedy pass@1: share of graded problems answered correctly. None: missing."""
    average: float | None = None
    """avg@k: mean over problems and samples. None: not asked for, or missing."""
    prompts: int = Field(ge=0)
    """Problems that were graded for `greedy`."""
    missing: bool = False
    """The evaluation was not complete by its deadline."""


def write_result(store: Store, result: EvaluationResult) -> None:
    """Record a result; a later one replaces it."""
    store.put(f"eval/{result.policy:06d}/result.json", result.model_dump_json().encode())


def read_results(store: Store) -> dict[int, EvaluationResult]:
    """All results by policy version, ascending."""
    keys = [key for key in store.list("eval/") if key.endswith("/result.json")]
    results = [EvaluationResult.model_validate_json(store.get(key)) for key in keys]
    return {result.policy: result for result in sorted(results, key=lambda result: result.policy)}


def greedy_accuracies(store: Store) -> dict[int, float]:
    """Greedy accuracy by policy version, ascending; missing evaluations are left out."""
    return {policy: result.greedy for policy, result in read_results(store).items() if result.greedy is not None}
