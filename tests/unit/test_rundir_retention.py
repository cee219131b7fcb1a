import pytest
from rundir_samples import RUN, a_plan, new_run

from empg.api.storage import RetentionSpec
from empg.rundir import keys
from empg.rundir.group import policies, publish_policy, publish_state, states
from empg.rundir.heartbeat import Liveness, SamplerRecord, read_records, write_record
from empg.rundir.owner import Fenced, LearnerOwner
from empg.rundir.plans import create_plan
from empg.rundir.retention import Inventory, Removal, garbage, removable, retain
from empg.rundir.seal import Seal, create_seal
from empg.store.posix import PosixStore

SPEC = RetentionSpec()  # 3 policies, the best, 2 states, all rollouts


def policies_kept(spec=SPEC, **needs) -> list[int]:
    inventory = Inventory(policies=tuple(range(10)), states=(), **needs)
    return sorted(set(inventory.policies) - set(removable(inventory, spec).policies))


@pytest.mark.parametrize(
    ("needs", "kept"),
    [
        ({}, [7, 8, 9]),
        ({"best": 4}, [4, 7, 8, 9]),
        ({"best": 9}, [7, 8, 9]),
        ({"best": 12}, [7, 8, 9]),
        ({"pinned": frozenset({0})}, [0, 7, 8, 9]),
        ({"held": frozenset({2, 5})}, [2, 5, 7, 8, 9]),
        ({"bounds": ((6, None),)}, [6, 7, 8, 9]),
        ({"bounds": ((3, 3), (9, None))}, [3, 7, 8, 9]),
        ({"bounds": ((3, 5),)}, [3, 4, 5, 7, 8, 9]),
        ({"spec": RetentionSpec(every=4)}, [0, 4, 7, 8, 9]),
        ({"spec": RetentionSpec(best=False), "best": 4}, [7, 8, 9]),
        ({"spec": RetentionSpec(policies=50)}, list(range(10))),
    ],
)
def test_policies_that_stay(needs, kept):
    assert policies_kept(**needs) == kept


@pytest.mark.parametrize(
    ("spec", "there", "gone_states", "gone_rollouts"),
    [
        (RetentionSpec(), (2, 4, 6), (2,), ()),
        (RetentionSpec(states=1), (2, 4, 6), (2, 4), ()),
        # 4 is the oldest state that stays: rollouts from 4 on train again after a restart, one more is kept.
        (RetentionSpec(rollouts=1), (2, 4, 6), (2,), (0, 1, 2)),
        (RetentionSpec(rollouts=1, states=1), (2, 4, 6), (2, 4), (0, 1, 2, 3, 4)),
        (RetentionSpec(rollouts=3), (2, 4, 6), (2,), (0,)),
        (RetentionSpec(rollouts=1), (), (), ()),
        (RetentionSpec(rollouts=1), (0,), (), ()),
    ],
)
def test_states_and_rollouts_that_go(spec, there, gone_states, gone_rollouts):
    removal = removable(Inventory(policies=(), states=there, sealed=tuple(range(7))), spec)
    assert removal == Removal(policies=(), states=gone_states, rollouts=gone_rollouts)


@pytest.mark.parametrize(
    ("attempts", "manifests", "gone"),
    [
        ({7: ["000001-a"]}, {7: "000001-a"}, []),
        ({7: ["000001-a", "000002-b"]}, {7: "000001-a"}, [(7, "000002-b")]),
        # Not published yet: ours, or perhaps about to be named by the manifest of a learner that just lost.
        ({7: ["000001-a", "000002-b"]}, {}, []),
        ({7: ["000001-a"]}, {6: "000001-x"}, []),
        # An old group that nobody publishes any more.
        ({5: ["000001-a", "000002-b"], 6: ["000001-x"]}, {6: "000001-x"}, [(5, "000001-a")]),
        ({5: ["snapshot"]}, {6: "000001-x"}, []),
    ],
)
def test_garbage_of_crashed_learners(attempts, manifests, gone):
    assert list(garbage(attempts, manifests, owner=2)) == gone


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_retain_removes_what_may_go_and_nothing_else(tmp_path):
    store = new_run(tmp_path)
    crashed = LearnerOwner.acquire(store, "crashed")
    store.put(f"policy/000001/{crashed.attempt()}/model.safetensors", b"half")
    store.put(f"policy/000009/{crashed.attempt()}/model.safetensors", b"half")
    owner = LearnerOwner.acquire(store, "learner")
    for number in range(9):
        publish_policy(store, owner, number, [("model.safetensors", b"w")], {})
        publish_state(store, owner, number, [("weights.safetensors", b"w")], {})
        create_plan(store, a_plan(iteration=number, min_policy=number))
        store.put(f"rollout/{number:06d}/units/00-0000.0.parquet", b"")
        (tmp_path / f"rollout/{number:06d}/units/.tmp-1").write_bytes(b"half")
        if number < 8:
            create_seal(store, Seal(run=RUN, kind="rollout", iteration=number, units=()))
    create_plan(store, a_plan(iteration=3, kind="eval", min_policy=3, max_policy=3))
    create_plan(store, a_plan(iteration=2, kind="eval", min_policy=2, max_policy=2))
    create_seal(store, Seal(run=RUN, kind="eval", iteration=2, units=()))
    store.put(f"{keys.TENSORBOARD}/{keys.event_file(0)}", b"")
    (tmp_path / keys.TENSORBOARD / ".tmp-1").write_bytes(b"half")
    clock = Clock()
    liveness = Liveness(10, clock)
    for sampler in ("gone", "live"):
        write_record(store, SamplerRecord(id=sampler, incarnation="1", counter=0, progress=0, policy=4, loading=5))
    liveness.observe(read_records(store))
    clock.now += 11
    write_record(store, SamplerRecord(id="live", incarnation="1", counter=1, progress=0, policy=4, loading=5))

    removal = retain(store, RetentionSpec(rollouts=2), owner, liveness, best=0, pinned={1})

    assert removal == Removal(policies=(2,), states=tuple(range(7)), rollouts=(0, 1, 2, 3, 4))
    assert policies(store) == [0, 1, 3, 4, 5, 6, 7, 8]
    assert states(store) == [7, 8]
    assert store.children("rollout") == [f"{number:06d}" for number in (5, 6, 7, 8)]
    assert len(store.list("rollout/000005")) == 3
    assert [record.id for record in read_records(store)] == ["live"]
    assert len(store.children("policy/000001")) == 2, "the crashed attempt beside a manifest went"
    assert len(store.children("policy/000009")) == 1, "one that may yet be named stays"
    assert store.children("learner") == ["owner.2", "state"]
    assert not list(tmp_path.glob("rollout/000007/units/.tmp-*"))
    assert [path.name for path in (tmp_path / keys.TENSORBOARD).iterdir()] == [keys.event_file(0)]
    assert list(tmp_path.glob("rollout/000008/units/.tmp-*")), "an open iteration is left alone"
    assert retain(store, RetentionSpec(rollouts=2), owner, liveness, best=0, pinned={1}) == Removal((), (), ())


def test_a_fenced_learner_removes_nothing(tmp_path):
    store = new_run(tmp_path)
    owner = LearnerOwner.acquire(store, "learner")
    for number in range(9):
        publish_policy(store, owner, number, [("model.safetensors", b"w")], {})
    LearnerOwner.acquire(store, "successor")
    with pytest.raises(Fenced):
        retain(store, SPEC, owner, Liveness(10))
    assert policies(store) == list(range(9))


class Interrupted(Exception):
    """As if the process were killed."""


def test_a_removal_that_was_interrupted_is_finished_later(tmp_path):
    store = new_run(tmp_path)
    owner = LearnerOwner.acquire(store, "learner")
    publish_state(store, owner, 3, [("weights.safetensors", b"w")], {})
    create_plan(store, a_plan(iteration=0, min_policy=0))
    for key in ("claims/00-0000.0", "rejects/00-0000.1", "units/00-0000.0.parquet", "units/00-0001.0.parquet"):
        store.put(f"rollout/000000/{key}", b"")
    create_seal(store, Seal(run=RUN, kind="rollout", iteration=0, units=()))

    class Dying(PosixStore):
        deaths = 0

        def delete(self, key):
            if key.startswith("rollout/") and self.deaths < 5:
                self.deaths += 1
                if self.deaths % 2:
                    super().delete(key)
                raise Interrupted
            super().delete(key)

    dying = Dying(store.root)
    for _ in range(5):
        with pytest.raises(Interrupted):
            retain(dying, RetentionSpec(rollouts=1), owner, Liveness(10))
    assert retain(dying, RetentionSpec(rollouts=1), owner, Liveness(10)).rollouts == (0,)
    assert store.list("rollout") == []


def test_an_edit_that_lets_go_of_many_rollouts_stops_nobody_for_long(tmp_path):
    store = new_run(tmp_path)
    owner = LearnerOwner.acquire(store, "learner")
    publish_state(store, owner, 50, [("weights.safetensors", b"w")], {})
    for number in range(49):
        create_plan(store, a_plan(iteration=number, min_policy=0))
        create_seal(store, Seal(run=RUN, kind="rollout", iteration=number, units=()))
    spec = RetentionSpec(rollouts=1)
    gone = [retain(store, spec, owner, Liveness(10)).rollouts for _ in range(4)]
    assert [len(numbers) for numbers in gone] == [20, 20, 9, 0]
    assert [number for numbers in gone for number in numbers] == list(range(49))
