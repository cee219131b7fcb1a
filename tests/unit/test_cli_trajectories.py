"""`empg trajectories`: which answers are printed, and that no more is read than that."""

import json
from pathlib import Path

import pytest
from rundir_samples import RUN, a_plan, new_run, rows_of

from empg.cli.main import main
from empg.exit_codes import OK, SPEC
from empg.rundir.plans import create_plan
from empg.rundir.seal import Seal, SealedUnit, create_seal
from empg.rundir.units import commit, read_unit
from empg.store.posix import PosixStore

REWARDS = {0: (0.5, 1.0), 1: (0.0, float("nan"))}
"""Of the two units of each iteration."""


@pytest.fixture
def store(tmp_path: Path) -> PosixStore:
    store = new_run(tmp_path)
    for iteration, rewards in REWARDS.items():
        plan = a_plan(iteration=iteration, min_policy=0)
        create_plan(store, plan)
        sealed = []
        for unit, reward in zip(plan.units, rewards, strict=True):
            assert commit(store, plan, unit.name, 0, rows_of(plan, unit.name, reward=reward))
            rows, digest = read_unit(store, plan, unit.name, 0)
            sealed.append(SealedUnit(unit=unit.name, attempt=0, digest=digest, rows=len(rows)))
        create_seal(store, Seal(run=RUN, kind="rollout", iteration=iteration, units=tuple(sealed)))
    return store


def printed(store: PosixStore, capsys: pytest.CaptureFixture[str], *options: str) -> list[tuple[int, float | None]]:
    """Iteration and reward of what is printed."""
    assert main(["trajectories", str(store.root), "--json", *options]) == OK
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(row["rewards"] == {"correct": row["reward"]} for row in rows)
    return [(row["iteration"], row["reward"]) for row in rows]


def test_the_newest_iteration_is_shown(store: PosixStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(store, capsys) == [(1, 0.0)] * 4 + [(1, None)] * 4
    assert printed(store, capsys, "--iteration", "0", "--limit", "5") == [(0, 0.5)] * 4 + [(0, 1.0)]


def test_best_and_worst_leave_out_what_has_no_reward(store: PosixStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(store, capsys, "--all", "--best", "5") == [(0, 1.0)] * 4 + [(0, 0.5)]
    assert printed(store, capsys, "--all", "--worst", "5") == [(1, 0.0)] * 4 + [(0, 0.5)]
    assert printed(store, capsys, "--worst", "20") == [(1, 0.0)] * 4


def test_as_many_of_the_best_are_printed_as_were_asked_for(
    store: PosixStore, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = a_plan(units=12, iteration=2)
    create_plan(store, plan)
    sealed = []
    for unit in plan.units:
        assert commit(store, plan, unit.name, 0, rows_of(plan, unit.name))
        rows, digest = read_unit(store, plan, unit.name, 0)
        sealed.append(SealedUnit(unit=unit.name, attempt=0, digest=digest, rows=len(rows)))
    create_seal(store, Seal(run=RUN, kind="rollout", iteration=2, units=tuple(sealed)))
    assert len(printed(store, capsys)) == 20
    assert len(printed(store, capsys, "--best", "48")) == 48
    assert len(printed(store, capsys, "--worst", "30")) == 30
    assert len(printed(store, capsys, "--best", "48", "--limit", "7")) == 7


def test_iterations_beyond_the_limit_are_not_read(store: PosixStore, capsys: pytest.CaptureFixture[str]) -> None:
    for key in store.list("rollout/000001/units"):
        store.delete(key)
    assert printed(store, capsys, "--all", "--limit", "8") == [(0, 0.5)] * 4 + [(0, 1.0)] * 4
    assert main(["trajectories", str(store.root), "--all"]) == SPEC
    assert "is missing" in capsys.readouterr().err
