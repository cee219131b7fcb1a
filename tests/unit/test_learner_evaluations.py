"""How held-out answers become an accuracy."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rundir_samples import RUN, a_plan, new_run, rows_of

from empg.api.run import RunSpec
from empg.rundir.evaluations import read_results
from empg.rundir.heartbeat import Liveness
from empg.rundir.plan import Plan
from empg.rundir.plans import create_plan, read_plans
from empg.rundir.seal import Seal, SealedUnit
from empg.rundir.units import commit
from empg.store.posix import PosixStore
from empg.tasks.source import FiniteSource, Task
from empg.verdict import Verdict
from empg_trainer.evaluations import Evaluations, score
from empg_trainer.rollouts import Rollout

RIGHT, WRONG, NONE, HANGS, FAILS = (
    Verdict.CORRECT,
    Verdict.WRONG,
    Verdict.UNPARSEABLE,
    Verdict.TIMEOUT,
    Verdict.ERROR,
)


def an_evaluation(round: int = 0, samples: int = 1) -> Plan:
    """Two units of two problems."""
    plan = a_plan(kind="eval", round=round, samples=samples, min_policy=3, max_policy=3)
    units = tuple(unit.model_copy(update={"name": f"{round:02d}{unit.name[2:]}"}) for unit in plan.units)
    return plan.model_copy(update={"units": units})


def rollout(plans: Sequence[Plan], verdicts: dict[str, Sequence[Verdict]]) -> Rollout:
    """What was sealed: these verdicts by unit; all other units are void."""
    rows, units, void = [], [], []
    for plan in plans:
        for unit in plan.units:
            if unit.name not in verdicts:
                void.append(unit.name)
                continue
            found = rows_of(plan, unit.name, policy=3)
            units.append(SealedUnit(unit=unit.name, attempt=0, digest="0" * 64, rows=len(found)))
            rows += [replace(row, verdict=verdict) for row, verdict in zip(found, verdicts[unit.name], strict=True)]
    return Rollout(Seal(run=RUN, kind="eval", iteration=3, units=tuple(units), void=tuple(void)), rows)


@pytest.mark.parametrize(
    ("verdicts", "greedy", "graded", "ungraded"),
    [
        ({"00-0000": [RIGHT, WRONG], "00-0001": [RIGHT, NONE]}, 0.5, 4, 0),
        ({"00-0000": [RIGHT, WRONG], "00-0001": [HANGS, FAILS]}, 0.25, 2, 2),
        ({"00-0000": [RIGHT, RIGHT]}, 0.5, 2, 2),
        ({"00-0000": [HANGS, FAILS]}, None, 0, 4),
        ({}, None, 0, 4),
    ],
    ids=["all graded", "grader fails", "a void unit", "nothing graded", "all void"],
)
def test_an_answer_that_was_not_graded_is_not_right(
    verdicts: dict[str, list[Verdict]], greedy: float | None, graded: int, ungraded: int
) -> None:
    plans = [an_evaluation()]
    result = score(3, plans, rollout(plans, verdicts))
    assert (result.greedy, result.average) == (greedy, None)
    assert (result.prompts, result.ungraded) == (graded, ungraded)


def test_both_rounds_have_their_own_denominator() -> None:
    plans = [an_evaluation(), an_evaluation(round=1, samples=2)]
    verdicts = {"00-0000": [RIGHT, WRONG], "00-0001": [RIGHT, FAILS], "01-0000": [RIGHT, RIGHT, RIGHT, HANGS]}
    result = score(3, plans, rollout(plans, verdicts))
    assert (result.greedy, result.average, result.ungraded) == (0.5, 3 / 8, 6)


def test_a_missing_evaluation_has_no_accuracy() -> None:
    plans = [an_evaluation()]
    found = rollout(plans, {"00-0000": [RIGHT, WRONG]})
    result = score(3, plans, replace(found, seal=found.seal.model_copy(update={"missing": True})))
    assert (result.greedy, result.missing, result.ungraded) == (None, True, 2)


def no_tokens(text: str) -> tuple[int, ...]:
    raise AssertionError("nothing is planned here")


def test_answers_that_were_not_graded_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store, plan = new_run(tmp_path), an_evaluation()
    create_plan(store, plan)
    nan = float("nan")
    for unit, (verdict, reward) in zip(plan.units, ((RIGHT, 1.0), (HANGS, nan)), strict=True):
        rows = [replace(row, verdict=verdict) for row in rows_of(plan, unit.name, policy=3, reward=reward)]
        assert commit(store, plan, unit.name, 0, rows)
    evaluations = Evaluations(store, RUN, Task(train=FiniteSource((), no_tokens), heldout=()), Liveness(60))
    with caplog.at_level(logging.WARNING):
        evaluations.collect()
    assert read_results(store)[3].greedy == 0.5
    assert "policy 3: 2 held-out answers were not graded" in caplog.text


class Dying(PosixStore):
    """Ends the learner, as it were, before it writes keys that end so."""

    before = ""

    def put(self, key: str, data: bytes) -> None:
        self._die(key)
        super().put(key, data)

    def create(self, key: str, data: bytes) -> None:
        self._die(key)
        super().create(key, data)

    def _die(self, key: str) -> None:
        if self.before and key.endswith(self.before):
            raise KeyboardInterrupt(key)


def evaluations_on(store: PosixStore) -> Evaluations:
    heldout = tuple(prompt for unit in an_evaluation().units for prompt in unit.prompts)
    return Evaluations(store, RUN, Task(train=FiniteSource((), no_tokens), heldout=heldout), Liveness(60))


def test_an_evaluation_given_up_is_missing_whenever_the_learner_dies(tmp_path: Path) -> None:
    store = Dying(new_run(tmp_path).root)
    create_plan(store, an_evaluation())
    store.before = "result.json"
    with pytest.raises(KeyboardInterrupt):
        evaluations_on(store).give_up()
    store.before = ""
    evaluations_on(store).collect()
    result = read_results(store)[3]
    assert (result.missing, result.greedy) == (True, None)


def test_a_round_that_was_not_planned_when_the_learner_died_is_planned_later(tmp_path: Path) -> None:
    store = Dying(new_run(tmp_path).root)
    spec = RunSpec.model_validate(
        {
            "model": {"name": "m"},
            "task": {"name": "arithmetic"},
            "em": {"iterations": 9},
            "evaluation": {"every": 3, "samples": 2},
        }
    )
    store.before = "plan/01.json"
    with pytest.raises(KeyboardInterrupt):
        evaluations_on(store).plan(spec, 3, last=False)
    store.before = ""
    for _ in range(2):
        evaluations_on(store).plan(spec, 3, last=False)
        assert [plan.round for plan in read_plans(store, "eval", 3)] == [0, 1]
