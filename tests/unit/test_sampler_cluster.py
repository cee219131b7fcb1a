"""Parts of a sampler that matter in a pod: probes, the end of its turn, engine settings from a mounted manifest."""

import json

import pytest

from empg.api.run import EMPGRun, RunSpec, spec_digest
from empg.cluster.reporter import Pace, StatusReporter
from empg.rundir.identity import Identity, prepare
from empg.rundir.plan import Plan
from empg.rundir.specs import write_spec
from empg.store.posix import PosixStore
from empg_sampler.choose import Board, OpenUnit
from empg_sampler.errors import InvalidSpec
from empg_sampler.health import Health
from empg_sampler.specs import starting_spec
from empg_sampler.turn import Turn, attempt


def test_a_sampler_that_starts_is_alive_and_not_ready():
    now = [0.0]
    health = Health(lambda: now[0])
    now[0] = 10_000.0
    assert health.alive()
    assert not health.ready()
    health.beat()
    assert health.ready()
    now[0] += 59
    assert health.alive()
    assert health.ready()
    now[0] += 2
    assert not health.ready()


def test_loading_a_policy_may_take_long():
    now = [0.0]
    health = Health(lambda: now[0])
    health.beat(within=1800, stall=0)
    now[0] = 1799.0
    assert health.alive()
    health.beat(stall=0)
    now[0] += 61
    assert not health.alive()


def test_a_storage_that_stalls_ends_no_sampler_for_ten_minutes():
    now = [0.0]
    health = Health(lambda: now[0])
    health.beat()
    now[0] = 659.0
    assert health.alive()
    assert not health.ready()
    now[0] = 661.0
    assert not health.alive()


def test_an_engine_that_never_starts_is_not_alive_for_ever():
    now = [0.0]
    health = Health(lambda: now[0])
    with health.within(3600):
        now[0] = 3599.0
        assert health.alive()
        assert not health.ready()
        now[0] = 3601.0
        assert not health.alive()
    now[0] = 1e6  # it waits for another policy, or the learner
    assert health.alive()
    assert not health.ready()


def a_plan():
    prompt = {"prompt_id": "p", "prompt": "p", "prompt_ids": [1], "gold": "1"}
    return Plan.model_validate(
        {
            "run": "u",
            "kind": "rollout",
            "iteration": 0,
            "round": 0,
            "min_policy": 0,
            "seed": 0,
            "samples": 1,
            "sampling": {"temperature": 1, "top_p": 1, "top_k": 0, "max_tokens": 4},
            "grader": {"name": "exact"},
            "task": "arithmetic",
            "units": [{"name": "00-0000", "prompts": [prompt]}],
        }
    )


PLANNED = frozenset({("rollout", 0)})
DONE = Board(open=(), held=(), iterations=PLANNED)


def boards():
    plan = a_plan()
    return {
        "open": Board(open=(OpenUnit(plan, plan.units[0], 0),), held=(), iterations=PLANNED),
        "held": Board(open=(), held=(plan,), iterations=PLANNED),
        "nothing planned": Board(open=(), held=(), iterations=frozenset()),
    }


@pytest.mark.parametrize("busy", ["open", "held", "nothing planned"])
def test_the_turn_ends_after_two_looks_that_find_nothing_to_do(busy):
    written = []
    with Turn(StatusReporter(written.append, Pace()), attempt=5) as turn:
        for board in (boards()[busy], boards()[busy], DONE, boards()[busy], DONE):
            turn.look(board)
        assert written == []
    assert written == []
    with Turn(StatusReporter(written.append, Pace()), attempt=5) as turn:
        for _ in range(5):
            turn.look(DONE)
    assert written == [{"sampled": 5}]


@pytest.mark.parametrize("environment", [{}, {"EMPG_ATTEMPT": ""}, {"EMPG_ATTEMPT": "one"}])
def test_a_report_needs_the_attempt(environment):
    with pytest.raises(InvalidSpec, match="EMPG_ATTEMPT"):
        attempt(environment)
    assert attempt({"EMPG_ATTEMPT": "12"}) == 12


SPEC = {
    "model": {"name": "x"},
    "task": {"name": "arithmetic", "maxPromptTokens": 100},
    "em": {"iterations": 3},
    "sampler": {"maxTokens": 50, "maxModelLength": 160, "temperature": 0.5, "maxConcurrentSequences": 8},
}


def a_manifest(path, **changes):
    spec = {section: {**SPEC.get(section, {}), **changes.get(section, {})} for section in {*SPEC, *changes}}
    run = {"apiVersion": "empg.dev/v1alpha1", "kind": "EMPGRun", "metadata": {"name": "r"}, "spec": spec}
    path.write_text(json.dumps(run))
    return EMPGRun.model_validate(run).spec


@pytest.fixture
def store(tmp_path):
    store = PosixStore(tmp_path / "run")
    fixed = RunSpec.model_validate(SPEC)
    prepare(store, Identity(uid="u", name="r", spec_digest=spec_digest(fixed)))
    write_spec(store, 0, fixed)
    return store


def test_engine_settings_come_from_the_manifest_and_all_else_from_the_learner(store, tmp_path):
    file = tmp_path / "run.json"
    a_manifest(
        file,
        sampler={"maxConcurrentSequences": 4, "kvCacheMib": 64, "maxTokens": 40, "temperature": 1.0},
        logging={"level": "WARNING"},
    )
    spec = starting_spec(store, file)
    assert (spec.sampler.max_concurrent_sequences, spec.sampler.kv_cache_mib, spec.logging.level) == (4, 64, "WARNING")
    assert (spec.sampler.max_tokens, spec.sampler.temperature) == (50, 0.5)
    assert starting_spec(store, None).sampler.max_concurrent_sequences == 8


def test_engines_have_room_for_what_is_planned_already(store, tmp_path):
    file = tmp_path / "run.json"
    a_manifest(file, sampler={"maxTokens": 20, "maxModelLength": 120})
    assert starting_spec(store, file).model_length == 150
    a_manifest(file, sampler={"maxTokens": 20, "maxModelLength": 500})
    assert starting_spec(store, file).model_length == 500
    a_manifest(file, sampler={"maxTokens": 20, "maxModelLength": None})
    assert starting_spec(store, file).model_length == 150


def test_a_manifest_of_another_run_is_refused_by_field(store, tmp_path):
    file = tmp_path / "run.json"
    a_manifest(file, em={"seed": 4})
    with pytest.raises(InvalidSpec, match=r"spec\.em\.seed is immutable"):
        starting_spec(store, file)


def test_before_the_learner_began_there_is_no_spec(tmp_path):
    a_manifest(tmp_path / "run.json")
    assert starting_spec(PosixStore(tmp_path / "new"), tmp_path / "run.json") is None
