"""Any process may die at any instant: nothing is lost, torn or counted twice."""

import json
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from rundir_roles import UNITS, WINS, answers, check_policy, the_plan

from empg.rundir import keys, records
from empg.rundir.claims import Claim
from empg.rundir.final import read_final
from empg.rundir.group import policies
from empg.rundir.heartbeat import read_record
from empg.rundir.plans import read_plans
from empg.rundir.seal import read_seal, read_sealed
from empg.store.posix import PosixStore

KILLS = 200

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def hammered(tmp_path_factory: pytest.TempPathFactory) -> tuple[PosixStore, dict[str, int]]:
    root = tmp_path_factory.mktemp("hammer") / "run"
    program = Path(__file__).with_name("rundir_hammer.py")
    done = subprocess.run(
        [sys.executable, program, root, str(KILLS)], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    print(done.stdout, done.stderr)
    return PosixStore(root), json.loads(done.stdout)


@pytest.fixture(scope="module")
def claims(hammered) -> dict[tuple[int, str], dict[int, Claim]]:
    """Every claim by iteration and unit, then attempt."""
    store, _ = hammered
    found: dict[tuple[int, str], dict[int, Claim]] = defaultdict(dict)
    for key in store.list("rollout"):
        _, iteration, directory, name = [*key.split("/"), ""][:4]
        if directory == "claims":
            unit, attempt = keys.parse_attempt(name)
            found[int(iteration), unit][attempt] = records.read(store, key, Claim)
    return found


def test_processes_died_as_they_were_killed_and_in_no_other_way(hammered):
    _, happened = hammered
    ends = {what for what in happened if "ended with" in what}
    assert ends <= {
        "fast ended with -9",
        "fast ended with 0",
        "slow ended with 0",
        "reader ended with 0",
        "learner ended with -9",
        "learner ended with 0",
        "learner ended with 75",
    }
    assert not [what for what in happened if "left over" in what]
    assert happened["killed"] >= KILLS
    assert happened["reader ended with 0"] == 1
    assert happened["slow ended with 0"] == 2
    assert happened["learner ended with -9"] >= 5
    assert happened["learner ended with 75"] >= 2, "no learner was fenced"


def test_every_unit_is_sealed_once_and_intact(hammered):
    store, _ = hammered
    final = read_final(store)
    assert final.iterations >= 3
    for iteration in range(final.iterations):
        seal = read_seal(store, "rollout", iteration)
        plan = the_plan(iteration)
        assert read_plans(store, "rollout", iteration) == (plan,)
        assert sorted(unit.unit for unit in seal.units) == [unit.name for unit in plan.units]
        assert seal.void == ()
        rows = [row for unit in plan.units for row in answers(plan, unit.name)]
        assert [replace(row, rewards={}) for row in read_sealed(store, [plan], seal)] == rows


def test_every_claim_had_one_winner(hammered, claims):
    store, _ = hammered
    wins = [key.split("/") for key in store.list(WINS)]
    assert len(wins) >= 20 * len({iteration for _, iteration, _, _ in wins})
    for _, iteration, name, incarnation in wins:
        unit, attempt = keys.parse_attempt(name)
        assert claims[int(iteration), unit][attempt].incarnation == incarnation


def test_every_policy_is_whole_and_of_one_learner(hammered):
    store, _ = hammered
    versions = policies(store)
    assert versions == list(range(1, read_final(store).policy + 1))
    for version in versions:
        assert check_policy(store, version).meta == {"trained_on": version - 1}


def test_claims_of_the_dead_were_taken_over(hammered, claims):
    store, _ = hammered
    taken_over = 0
    for of_unit in claims.values():
        assert sorted(of_unit) == list(range(len(of_unit))), "an attempt was skipped"
        for attempt in range(1, len(of_unit)):
            before = of_unit[attempt - 1]
            record = read_record(store, before.sampler)
            taken_over += before.state == "held" and record.incarnation != before.incarnation
    assert taken_over >= 20


def test_claims_of_slow_samplers_were_left_alone(claims):
    slow = 0
    for of_unit in claims.values():
        for attempt, claim in of_unit.items():
            if claim.sampler.startswith("slow"):
                slow += 1
                assert attempt + 1 not in of_unit, f"a live claim was taken by {of_unit[attempt + 1]}"
    assert slow >= 8
    assert slow < len(claims) <= 1000 * UNITS
