import json
from pathlib import Path

import pytest
from rundir_samples import RUN, a_plan, new_run, rows_of

from empg.rundir import keys
from empg.rundir.claims import claim
from empg.rundir.final import Final, write_final
from empg.rundir.group import publish_policy
from empg.rundir.heartbeat import SamplerRecord, read_record, write_record
from empg.rundir.identity import Identity, prepare
from empg.rundir.owner import LearnerOwner
from empg.rundir.plan import Plan
from empg.rundir.plans import create_plan
from empg.rundir.seal import Seal, create_seal
from empg.rundir.units import commit
from empg.store.base import StorageFull
from empg.store.posix import PosixStore
from empg_sampler.finished import finished
from empg_sampler.pulse import Pulse
from empg_sampler.survey import Peers, Surveyor, find_policy
from empg_sampler.weights import BadPolicy


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def record(sampler: str, counter: int, policy: int | None = 0, incarnation: str = "1") -> SamplerRecord:
    return SamplerRecord(id=sampler, incarnation=incarnation, counter=counter, progress=0, policy=policy)


def test_only_samplers_that_beat_and_hold_a_policy_share_the_work() -> None:
    clock = Clock()
    peers = Peers("me", 10, clock)
    peers.observe([record("me", 1), record("gone", 70), record("loading", 1, None), record("ready", 1)])
    assert peers.working == 1  # a record alone may be years old
    clock.now += 1
    peers.observe([record("me", 2), record("gone", 70), record("loading", 2, None), record("ready", 2)])
    assert peers.working == 2
    clock.now += 1
    peers.observe([record("loading", 3)])
    assert peers.working == 3
    clock.now += 9.5
    assert peers.working == 2
    clock.now += 10
    assert peers.working == 1


def opened(surveyor: Surveyor) -> list[tuple[str, int, str, int]]:
    return [(unit.plan.kind, unit.plan.iteration, unit.unit.name, unit.attempt) for unit in surveyor.board().open]


def seal(plan: Plan) -> Seal:
    return Seal(run=RUN, kind=plan.kind, iteration=plan.iteration, units=())


def test_a_board_shows_open_and_held_units_of_what_is_not_sealed(tmp_path: Path) -> None:
    store = new_run(tmp_path)
    sealed, current, evaluation = a_plan(iteration=1), a_plan(3, iteration=2), a_plan(1, iteration=2, kind="eval")
    surveyor = Surveyor(store, "me", 5)
    for plan in (sealed, current, evaluation):
        create_plan(store, plan)
    create_seal(store, seal(sealed))
    write_record(store, record("a", 1))
    assert claim(store, current, "00-0000", 0, "a", "1", 2)
    assert commit(store, current, "00-0001", 0, rows_of(current, "00-0001"))
    board = surveyor.board()
    assert opened(surveyor) == [("rollout", 2, "00-0002", 0), ("eval", 2, "00-0000", 0)]
    assert board.held == (current,)
    assert board.iterations == {("rollout", 2), ("eval", 2)}

    refill = a_plan(1, iteration=2, round=1)
    create_plan(store, refill.model_copy(update={"units": (refill.units[0].model_copy(update={"name": "01-0000"}),)}))
    assert ("rollout", 2, "01-0000", 0) in opened(surveyor)
    create_seal(store, seal(current))
    assert opened(surveyor) == [("eval", 2, "00-0000", 0)]


def test_the_claim_of_a_silent_sampler_opens_after_a_lease(tmp_path: Path) -> None:
    store, clock = new_run(tmp_path), Clock()
    plan = a_plan(1)
    create_plan(store, plan)
    write_record(store, record("a", 1))
    surveyor = Surveyor(store, "me", 5, clock)
    assert claim(store, plan, "00-0000", 0, "a", "1", 2)
    assert opened(surveyor) == []
    clock.now += 4.9
    assert opened(surveyor) == []
    clock.now += 0.2
    assert opened(surveyor) == [("rollout", 3, "00-0000", 1)]


def test_policies_count_once_their_manifest_is_there(tmp_path: Path) -> None:
    store = new_run(tmp_path)
    surveyor = Surveyor(store, "me", 5)
    store.put(f"{keys.policy_prefix(1)}/attempt/model.safetensors", b"x")
    assert surveyor.policies() == set()
    with pytest.raises(BadPolicy, match="policy/000001: has no manifest"):
        find_policy(store, 1)
    owner = LearnerOwner.acquire(store, "learner")
    for version in (0, 1):
        publish_policy(store, owner, version, [("model.safetensors", b"weights")], {})
    assert surveyor.policies() == {0, 1}
    policy = find_policy(store, 1)
    assert policy.version == 1
    assert policy.files["model.safetensors"][0] == 7
    assert (policy.directory / "model.safetensors").read_bytes() == b"weights"
    for key in store.list(keys.policy_prefix(0)):
        store.delete(key)
    assert surveyor.policies() == {1}


def test_a_damaged_or_foreign_manifest_is_a_bad_policy(tmp_path: Path) -> None:
    store = new_run(tmp_path)
    store.put(keys.group_manifest(keys.policy_prefix(0)), b"{}")
    with pytest.raises(BadPolicy, match=r"policy/000000/MANIFEST\.json"):
        find_policy(store, 0)
    publish_policy(store, LearnerOwner.acquire(store, "x"), 1, [("model.safetensors", b"w")], {})
    store.delete(keys.RUN)
    prepare(store, Identity(uid="uid-2", name="other", spec_digest="0" * 64))
    with pytest.raises(BadPolicy, match="of run uid-1"):
        find_policy(store, 1)


def test_a_heartbeat_is_written_at_once_and_progress_only_when_something_was_done(tmp_path: Path) -> None:
    store = new_run(tmp_path)
    with Pulse(store, "me", "x1") as pulse:
        first = read_record(store, "me")
        assert (first.incarnation, first.policy, first.progress) == ("x1", None, 0)
        pulse.advance(tokens=5)
        pulse.committed()
        pulse.say(policy=3, loading=4, asleep=True)
        second = read_record(store, "me")
        assert second.counter > first.counter
        assert (second.policy, second.loading, second.progress, second.units) == (3, 4, 1, 1)
        assert second.asleep
        pulse.say(policy=4)
        third = read_record(store, "me")
        assert (third.policy, third.loading, third.asleep, third.progress) == (4, None, False, 1)


def test_heartbeats_that_cannot_be_written_are_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Volume(PosixStore):
        full = True

        def put(self, key: str, data: bytes) -> None:
            if self.full:
                raise StorageFull(key, "No space left on device")
            super().put(key, data)

    store = Volume(tmp_path)
    pulse = Pulse(store, "me", "x1")
    with caplog.at_level("INFO"):
        for version in range(3):
            pulse.say(policy=version)
        assert read_record(store, "me") is None
        store.full = False
        pulse.say(policy=3)
        store.full = True
        pulse.say(policy=4)
    told = [record.message.split(":")[0] for record in caplog.records]
    assert told == ["heartbeat not written", "heartbeats are written again", "heartbeat not written"]
    record = read_record(store, "me")
    assert record is not None
    assert record.policy == 3


@pytest.mark.parametrize(("iterations", "over"), [(1, True), (2, True), (3, False)])
def test_a_run_that_was_given_more_iterations_is_not_finished(tmp_path: Path, iterations: int, over: bool) -> None:
    store = new_run(tmp_path)
    assert not finished(store)
    write_final(store, Final(run=RUN, iterations=2, policy=2, evaluations={}))
    assert finished(store)
    manifest = {
        "apiVersion": "empg.dev/v1alpha1",
        "kind": "EMPGRun",
        "metadata": {"name": "demo"},
        "spec": {"model": {"name": "m"}, "task": {"name": "arithmetic"}, "em": {"iterations": iterations}},
    }
    store.put(keys.MANIFEST, json.dumps(manifest).encode())
    assert finished(store) is over


def test_iterations_that_are_known_to_be_sealed_are_not_looked_at_again(tmp_path: Path) -> None:
    """There may be thousands, and none that is open for as long as an evaluation lasts."""
    looks = []

    class Counting(PosixStore):
        def children(self, prefix: str) -> list[str]:
            looks.append(prefix)
            return list(super().children(prefix))

    store = Counting(new_run(tmp_path).root)
    surveyor = Surveyor(store, "a", 60)
    for number in range(20):
        plan = a_plan(iteration=number, kind="eval", min_policy=number, max_policy=number)
        create_plan(store, plan)
        create_seal(store, seal(plan))
    for open_iterations in (0, 0, 1):
        if open_iterations:
            create_plan(store, a_plan(iteration=20, kind="eval", min_policy=20, max_policy=20))
        looks.clear()
        assert len(surveyor.board().iterations) == open_iterations
    assert not [prefix for prefix in looks if prefix.startswith("eval/") and not prefix.startswith("eval/000020")]
