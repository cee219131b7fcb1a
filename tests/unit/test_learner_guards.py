"""Guards on what an E-step gave: how much may be lost before the run stops instead of training on the rest."""

from dataclasses import replace

import pytest
from rundir_samples import RUN, a_plan, rows_of

from empg.api.guards import GuardsSpec
from empg.exit_codes import DIVERGED
from empg.rundir.seal import Seal, SealedUnit
from empg.verdict import Verdict
from empg_trainer.rollouts import Rollout, training_rows
from empg_trainer.stop import Diverged

OFF = {"maxVoidShare": 1.0, "maxErrorShare": 1.0, "maxUnparseableShare": 1.0}


def rollout(void: int = 0, **verdicts: int) -> Rollout:
    """Four units of four answers, of which so many are void, and so many answers of the others have these verdicts."""
    plan = a_plan(4)
    names = [unit.name for unit in plan.units]
    whole = names[void:]
    rows = [row for name in whole for row in rows_of(plan, name)]
    changed = [Verdict(name) for name, count in verdicts.items() for _ in range(count)]
    rows[: len(changed)] = [replace(row, verdict=verdict) for row, verdict in zip(rows, changed, strict=False)]
    sealed = tuple(SealedUnit(unit=name, attempt=0, digest="0" * 64, rows=4) for name in whole)
    return Rollout(Seal(run=RUN, kind="rollout", iteration=3, units=sealed, void=tuple(names[:void])), rows)


@pytest.mark.parametrize(
    ("guard", "lost", "said"),
    [
        ("maxVoidShare", {"void": 2}, "2 of 4"),
        ("maxErrorShare", {"timeout": 2, "error": 3}, "5 of 16"),
        ("maxUnparseableShare", {"unparseable": 5}, "5 of 16"),
    ],
)
def test_more_than_a_guard_allows_stops_the_run_and_names_it(guard: str, lost: dict[str, int], said: str) -> None:
    guards = GuardsSpec.model_validate(OFF | {guard: 0.25})
    with pytest.raises(
        Diverged, match=rf"iteration 3: {said} is more than guards\.{guard} \(0\.25\) allows"
    ) as stopped:
        training_rows(rollout(**lost), guards)
    assert stopped.value.code == DIVERGED
    assert training_rows(rollout(**lost), GuardsSpec.model_validate(OFF))


@pytest.mark.parametrize(
    ("lost", "left"),
    [({"void": 1}, 12), ({"timeout": 2, "error": 2}, 12), ({"unparseable": 4}, 16), ({}, 16)],
    ids=["void", "error", "unparseable", "nothing"],
)
def test_as_much_as_the_guards_allow_may_be_lost(lost: dict[str, int], left: int) -> None:
    guards = GuardsSpec.model_validate(dict.fromkeys(OFF, 0.25))
    rows = training_rows(rollout(**lost), guards)
    assert len(rows) == left
    assert all(row.verdict.trains for row in rows)
