"""run.json, plans, specs, owners, metrics, progress and final.json."""

import math

import pytest
from rundir_samples import RUN, a_plan, new_run

from empg.api.run import RunSpec
from empg.rundir.final import Final, read_final, write_final
from empg.rundir.identity import ForeignRun, Identity, prepare, read_identity
from empg.rundir.metrics import newest_iteration, read_metrics, write_metrics
from empg.rundir.owner import Fenced, LearnerOwner
from empg.rundir.plans import create_plan, planned, read_plans, unsealed
from empg.rundir.progress import Progress, read_progress, write_progress
from empg.rundir.records import CorruptRecord
from empg.rundir.seal import Seal, create_seal
from empg.rundir.specs import newest_spec, read_spec, write_spec
from empg.store.base import KeyExists, KeyMissing
from empg.store.posix import PosixStore

IDENTITY = Identity(uid=RUN, name="demo", spec_digest="0" * 64)


@pytest.fixture
def store(tmp_path):
    return new_run(tmp_path)


def spec(iterations: int) -> RunSpec:
    return RunSpec.model_validate(
        {"model": {"name": "m"}, "task": {"name": "arithmetic"}, "em": {"iterations": iterations}}
    )


def test_a_run_recognises_its_directory(store):
    assert prepare(store, IDENTITY) == IDENTITY == read_identity(store)
    with pytest.raises(KeyMissing, match=r"run\.json"):
        read_identity(PosixStore(store.root / "sub"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"uid": "uid-2"}, r"run.json: it belongs to run 'demo' \(UID uid-1\)"),
        ({"name": "other"}, r"run.json: it belongs to run 'demo' \(UID uid-1\)"),
        ({"spec_digest": "1"}, r"run.json: run 'demo' started here with other immutable fields"),
    ],
)
def test_another_run_is_refused_unless_it_adopts(store, change, message):
    other = IDENTITY.model_copy(update=change)
    with pytest.raises(ForeignRun, match=f"{message}.*storage.adopt: true"):
        prepare(store, other)
    assert read_identity(store) == IDENTITY
    adopted = prepare(store, other, adopt=True)
    assert adopted == other.model_copy(update={"uid": RUN}) == read_identity(store)


def test_plans_are_read_back_by_round(store):
    second = a_plan(round=1)
    first = a_plan()
    create_plan(store, second)
    create_plan(store, first)
    create_plan(store, first)
    assert read_plans(store, "rollout", 3) == (first, second)
    assert read_plans(store, "eval", 3) == ()


def test_a_plan_never_changes(store):
    create_plan(store, a_plan())
    with pytest.raises(KeyExists, match=r"rollout/000003/plan/00.json"):
        create_plan(store, a_plan(seed=1))
    assert read_plans(store, "rollout", 3) == (a_plan(),)


def test_a_plan_with_a_prompt_twice_is_refused(store):
    plan = a_plan()
    twice = plan.model_copy(update={"units": (plan.units[0], plan.units[0].model_copy(update={"name": "00-0009"}))})
    with pytest.raises(ValueError, match="prompt 'p0' occurs 2 times"):
        create_plan(store, twice)


def test_what_is_planned_and_what_is_open(store):
    for iteration in (0, 2, 10, 1_000_000):
        create_plan(store, a_plan(iteration=iteration))
    create_plan(store, a_plan(iteration=5, kind="eval"))
    create_seal(store, Seal(run=RUN, kind="rollout", iteration=2, units=()))
    store.put("rollout/000007/claims/00-0000.0", b"")
    assert planned(store, "rollout") == [0, 2, 10, 1_000_000]
    assert planned(store, "rollout", since=3) == [10, 1_000_000]
    assert planned(store, "eval") == [5]
    assert unsealed(store, "rollout") == [0, 10, 1_000_000]


def test_a_plan_in_another_place_is_refused(store):
    create_plan(store, a_plan())
    store.put("rollout/000004/plan/00.json", store.get("rollout/000003/plan/00.json"))
    with pytest.raises(CorruptRecord, match=r"rollout/000004/plan/00.json: holds round 0 of rollout 3"):
        read_plans(store, "rollout", 4)


def test_every_flipped_bit_of_a_plan_is_seen(store):
    create_plan(store, a_plan(units=1))
    path = store.local("rollout/000003/plan/00.json")
    data = path.read_bytes()
    for position in range(0, 8 * len(data), 11):
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        path.write_bytes(bytes(flipped))
        with pytest.raises(CorruptRecord, match=r"rollout/000003/plan/00\.json"):
            read_plans(store, "rollout", 3)


def test_a_plan_of_a_later_version_is_refused(store):
    plan = a_plan().model_copy(update={"format": 2})
    create_plan(store, plan)
    with pytest.raises(CorruptRecord, match="no valid Plan, written by another version perhaps"):
        read_plans(store, "rollout", 3)


def test_the_first_spec_of_an_iteration_stays(store):
    assert newest_spec(store) is None
    assert write_spec(store, 0, spec(5)) == spec(5)
    assert write_spec(store, 0, spec(6)) == spec(5) == read_spec(store, 0)
    write_spec(store, 10, spec(7))
    assert newest_spec(store) == (10, spec(7))
    with pytest.raises(KeyMissing, match=r"spec/000003.json"):
        read_spec(store, 3)


def test_the_newest_owner_wins(store):
    first = LearnerOwner.acquire(store, "one")
    first.check()
    second = LearnerOwner.acquire(store, "two")
    first.heartbeat()  # A zombie's heartbeat revives nothing.
    with pytest.raises(Fenced, match=r"learner/owner.2: learner 'two' took over from us, owner 1"):
        first.check()
    second.heartbeat()
    second.check()
    assert (first.number, second.number) == (1, 2)
    assert first.attempt().startswith("000001-")
    assert first.attempt() != first.attempt()


def test_metrics_are_one_line_per_iteration(store):
    write_metrics(store, 1, {"reward": 0.5, "kl": math.nan, "parts": {"format": (1.0, math.inf)}})
    write_metrics(store, 0, {"reward": 0.25})
    write_metrics(store, 0, {"reward": 0.125})
    assert newest_iteration(store) == 1
    assert store.get("metrics/000001.jsonl").count(b"\n") == 1
    assert read_metrics(store) == [
        {"reward": 0.125, "iteration": 0},
        {"reward": 0.5, "kl": None, "parts": {"format": [1.0, None]}, "iteration": 1},
    ]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"iteration": 1}', b"\xff"])
def test_garbage_among_the_metrics_is_named(store, content):
    store.put("metrics/000002.jsonl", content)
    with pytest.raises(CorruptRecord, match=r"metrics/000002\.jsonl"):
        read_metrics(store)


def test_no_iteration_is_finished_before_the_first(store):
    assert newest_iteration(store) == -1


def test_progress_and_the_end(store):
    assert (read_progress(store), read_final(store)) == (None, None)
    progress = Progress(attempt=1, iteration=2, iterations=5, phase="sampling", detail={"reward": 0.5, "laggards": []})
    write_progress(store, progress)
    assert read_progress(store) == progress
    final = Final(run=RUN, iterations=5, policy=5, evaluations={0: 0.25, 5: None})
    write_final(store, final)
    assert read_final(store) == final
