"""Learner and samplers that take turns on the same GPUs: the learner ends where samplers have to work first."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cluster_runs import UID, ClusterRun
from learner_runs import until
from scripted_sampler import ScriptedSampler
from status_server import StatusServer

from empg.exit_codes import OK, WAITING
from empg.rundir.claims import claim
from empg.rundir.evaluations import read_results
from empg.rundir.final import read_final
from empg.rundir.group import policies
from empg.rundir.heartbeat import SamplerRecord, write_record
from empg.rundir.metrics import read_metrics
from empg.rundir.plans import read_plans, unsealed
from empg.rundir.progress import read_progress
from empg.store.posix import PosixStore

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def planned_units(store):
    """Number of units of all open plans, and of those that are committed."""
    places = [(kind, number) for kind in ("rollout", "eval") for number in unsealed(store, kind)]
    units = sum(len(plan.units) for place in places for plan in read_plans(store, *place))
    return units, sum(len(store.children(f"{kind}/{number:06d}/units")) for kind, number in places)


def samplers_turn(store):
    """Samplers until nothing is left to do."""
    with ScriptedSampler(store):
        deadline = time.monotonic() + 60
        while (counts := planned_units(store))[0] != counts[1]:
            assert time.monotonic() < deadline, counts
            time.sleep(0.05)


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.exhaustive)])
def test_turns_lead_to_the_very_weights_of_a_run_at_once(tmp_path, processes):
    changes = {"sampler": {"rollStrategy": "Alternate"}, "learner": {"processes": processes}, "em": {"iterations": 2}}
    calm, run = ClusterRun(tmp_path / "calm", **changes), ClusterRun(tmp_path / "turns", **changes)
    code, said = calm.learn()
    assert code == OK, said

    phases = []
    with StatusServer(tmp_path / "api", UID) as api:
        for attempt in range(1, 6):
            learner = run.learner("--alternate", "--report", "--attempt", str(attempt), **api.environment())
            code, said = learner.ended()
            if code == OK:
                break
            assert code == WAITING, said
            assert "units are the samplers' to make first" in run.last_words.read_text()
            progress = read_progress(run.store)
            phases.append((progress.phase, progress.iteration, progress.units_done))
            last = api.statuses()[-1]["progress"]
            assert (last["attempt"], last["phase"], last["iteration"]) == (attempt, progress.phase, progress.iteration)
            assert last["unitsTotal"] == progress.units_total > 0
            samplers_turn(run.store)
    # One turn of the learner for each iteration, one before the first, and one for the last evaluation.
    assert phases == [("sampling", 0, 0), ("sampling", 1, 0), ("evaluating", 2, 0)]
    assert code == OK
    assert run.weights() == calm.weights()
    assert read_final(run.store).policy == 2
    assert [result.missing for result in read_results(run.store).values()] == [False, False]
    assert [row["replayed"] for row in read_metrics(run.store)] == [0, 0]


def test_a_unit_that_a_deleted_sampler_holds_is_judged_before_the_learner_leaves(tmp_path):
    """Samplers found it void; a learner that left at first sight of the claim would send them back for nothing."""
    run = ClusterRun(
        tmp_path,
        em={"unitAttempts": 1},
        sampler={"rollStrategy": "Alternate", "leaseSeconds": 2},
        evaluation={"prompts": 0},
        guards={"maxVoidShare": 0.5},
    )
    assert run.learner("--alternate").ended()[0] == WAITING
    (plan,) = read_plans(run.store, "rollout", 0)
    write_record(run.store, SamplerRecord(id="gone", incarnation="i", counter=0, progress=0, policy=0))
    assert claim(run.store, plan, plan.units[0].name, 0, "gone", "i", 0)
    with ScriptedSampler(run.store):
        until(lambda: planned_units(run.store) == (2, 1))
    code, said = run.learner("--alternate").ended()
    assert code == WAITING, said
    assert policies(run.store) == [0, 1]
    assert read_metrics(run.store)[0]["void_units"] == 1


def test_one_machine_takes_no_turns(tmp_path):
    manifest, root = tmp_path / "run.json", tmp_path / "run"
    spec = {
        "model": {"name": f"{ROOT}/examples/demo/base-model", "dtype": "float32"},
        "task": {"name": "arithmetic", "maxPromptTokens": 96, "grader": {"workers": 1}},
        "em": {"iterations": 2, "promptsPerIteration": 4, "samplesPerPrompt": 2, "promptsPerUnit": 4},
        "optimizer": {"learningRate": 1e-4},
        "sampler": {"maxTokens": 16, "kvCacheMib": 64, "rollStrategy": "Alternate"},
        "learner": {"precision": "float32"},
        "evaluation": {"prompts": 0},
    }
    run = {"apiVersion": "empg.dev/v1alpha1", "kind": "EMPGRun", "metadata": {"name": "small"}, "spec": spec}
    manifest.write_text(json.dumps(run))
    done = subprocess.run(
        [sys.executable, "-m", "empg.cli.main", "run", str(manifest), "--run-dir", str(root), "--plain"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == OK, done.stdout + done.stderr
    assert policies(PosixStore(root)) == [0, 1, 2]
    assert (root / "logs" / "learner.log").read_text().count("--- learner: start") == 1
