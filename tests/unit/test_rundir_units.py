import contextlib
import dataclasses
import hashlib

import pytest
from rundir_samples import RUN, a_plan, new_run, rows_of
from small_volume import small_volume

from empg.rundir.group import policies, publish_policy
from empg.rundir.owner import LearnerOwner
from empg.rundir.seal import Seal, SealedUnit, create_seal, read_seal, read_sealed
from empg.rundir.units import CorruptUnit, commit, read_unit, reject
from empg.store.base import StorageFull
from empg.trajectory import to_parquet

PLAN = a_plan()
FIRST, SECOND = (unit.name for unit in PLAN.units)
KEY = f"rollout/000003/units/{FIRST}.0.parquet"


@pytest.fixture
def store(tmp_path):
    return new_run(tmp_path)


def test_a_commit_is_read_back_in_plan_order(store):
    rows = rows_of(PLAN, FIRST)
    assert commit(store, PLAN, FIRST, 0, rows[::-1])
    assert read_unit(store, PLAN, FIRST, 0) == (rows, hashlib.sha256(store.get(KEY)).hexdigest())


def test_the_first_commit_of_an_attempt_stays(store):
    assert commit(store, PLAN, FIRST, 0, rows_of(PLAN, FIRST, reward=1.0))
    assert commit(store, PLAN, FIRST, 0, rows_of(PLAN, FIRST, reward=1.0)), "a lost reply is no loss"
    assert not commit(store, PLAN, FIRST, 0, rows_of(PLAN, FIRST, reward=0.0))
    assert commit(store, PLAN, FIRST, 1, rows_of(PLAN, FIRST, reward=0.0))
    assert {row.reward for row in read_unit(store, PLAN, FIRST, 0)[0]} == {1.0}


def other(row_change: dict) -> list:
    first, *rest = rows_of(PLAN, FIRST)
    return [dataclasses.replace(first, **row_change), *rest]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (other({"run": "uid-2"}), "run is 'uid-2' where 'uid-1' belongs"),
        (other({"iteration": 4}), "iteration is 4 where 3 belongs"),
        (other({"unit": SECOND}), "unit is '00-0001' where '00-0000' belongs"),
        (other({"prompt_id": "p9"}), "prompt 'p9' is not planned"),
        (other({"prompt_ids": (5, 9)}), "prompt 'p0' has other tokens"),
        (other({"sample": 5}), "1 of 4 answers are lacking"),
        (rows_of(PLAN, FIRST)[1:], "1 of 4 answers are lacking"),
        ([], "4 of 4 answers are lacking"),
        (rows_of(PLAN, FIRST)[:1] + rows_of(PLAN, FIRST), "5 rows where 4 belong"),
        (rows_of(PLAN, FIRST, policy=1), "prompt 'p0' was sampled with policy 1, admitted is 2 or later"),
        (rows_of(PLAN, SECOND), "unit is '00-0001'"),
    ],
)
def test_rows_that_do_not_fit_the_plan(store, rows, reason):
    with pytest.raises(ValueError, match=f"{KEY}: {reason}"):
        commit(store, PLAN, FIRST, 0, rows)
    assert store.list("rollout") == []
    store.create(KEY, to_parquet(rows))
    with pytest.raises(CorruptUnit, match=f"{KEY}: {reason}"):
        read_unit(store, PLAN, FIRST, 0)


def test_an_evaluation_is_bound_to_its_policy(store):
    plan = a_plan(kind="eval", max_policy=2)
    assert commit(store, plan, FIRST, 0, rows_of(plan, FIRST, policy=2))
    with pytest.raises(ValueError, match="sampled with policy 3, admitted is 2 alone"):
        commit(store, plan, FIRST, 1, rows_of(plan, FIRST, policy=3))


def test_a_missing_unit_is_named(store):
    with pytest.raises(CorruptUnit, match=f"{KEY}: is missing"):
        read_unit(store, PLAN, FIRST, 0)


def test_damaged_units_are_named_and_never_used(store):
    commit(store, PLAN, FIRST, 0, rows_of(PLAN, FIRST))
    data = store.get(KEY)
    damaged = [data[:length] for length in range(0, len(data), len(data) // 20)]
    for position in range(0, 8 * len(data), 8 * len(data) // 400):
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        damaged.append(bytes(flipped))
    assert len(damaged) > 400
    for content in damaged:
        store.local(KEY).write_bytes(content)
        with pytest.raises(CorruptUnit, match=KEY):
            read_unit(store, PLAN, FIRST, 0)


def test_a_reject_keeps_its_first_reason(store):
    reject(store, PLAN, FIRST, 0, "truncated")
    reject(store, PLAN, FIRST, 0, "foreign")
    assert b"truncated" in store.get(f"rollout/000003/rejects/{FIRST}.0")


def seal_of(store, attempts: dict[str, int], **changes) -> Seal:
    units = []
    for unit, attempt in attempts.items():
        rows, digest = read_unit(store, PLAN, unit, attempt)
        units.append(SealedUnit(unit=unit, attempt=attempt, digest=digest, rows=len(rows)))
    return Seal(**{"run": RUN, "kind": "rollout", "iteration": 3, "units": tuple(units), **changes})


def test_a_seal_closes_the_iteration(store):
    commit(store, PLAN, FIRST, 1, rows_of(PLAN, FIRST))
    commit(store, PLAN, SECOND, 0, rows_of(PLAN, SECOND))
    assert read_seal(store, "rollout", 3) is None
    seal = create_seal(store, seal_of(store, {SECOND: 0, FIRST: 1}))
    commit(store, PLAN, FIRST, 0, rows_of(PLAN, FIRST, reward=0.0))
    assert create_seal(store, seal_of(store, {SECOND: 0, FIRST: 0})) == seal, "the first seal wins"
    assert read_seal(store, "rollout", 3) == seal
    assert read_sealed(store, [PLAN], seal) == rows_of(PLAN, FIRST) + rows_of(PLAN, SECOND)


def test_void_units_have_no_rows(store):
    commit(store, PLAN, SECOND, 0, rows_of(PLAN, SECOND))
    seal = create_seal(store, seal_of(store, {SECOND: 0}, void=(FIRST,)))
    assert read_sealed(store, [PLAN], seal) == rows_of(PLAN, SECOND)


def test_a_unit_that_changed_after_its_seal_is_named(store):
    commit(store, PLAN, FIRST, 0, rows_of(PLAN, FIRST))
    seal = create_seal(store, seal_of(store, {FIRST: 0}))
    store.put(KEY, to_parquet(rows_of(PLAN, FIRST, reward=0.0)))
    with pytest.raises(CorruptUnit, match=f"{KEY}: changed since it was sealed"):
        read_sealed(store, [PLAN], seal)
    store.delete(KEY)
    with pytest.raises(CorruptUnit, match=f"{KEY}: is missing"):
        read_sealed(store, [PLAN], seal)


def test_seals_of_another_place_are_refused(store):
    commit(store, PLAN, FIRST, 0, rows_of(PLAN, FIRST))
    seal = create_seal(store, seal_of(store, {FIRST: 0}))
    store.put("rollout/000004/seal.json", store.get("rollout/000003/seal.json"))
    with pytest.raises(Exception, match=r"rollout/000004/seal.json: seals rollout 3"):
        read_seal(store, "rollout", 4)
    with pytest.raises(Exception, match=r"seal.json: is not a seal of run uid-2"):
        create_seal(store, seal.model_copy(update={"run": "uid-2"}))
    with pytest.raises(Exception, match=r"seal.json: is of run uid-1, not uid-2"):
        read_sealed(store, [PLAN.model_copy(update={"run": "uid-2"})], seal)
    with pytest.raises(Exception, match=r"seals units that no plan has: \['00-0000'\]"):
        read_sealed(store, [], seal)


def test_a_full_volume_delays_commits_seals_and_policies_and_tears_none(tmp_path):
    with small_volume(tmp_path):
        store = new_run(tmp_path)
        owner = LearnerOwner.acquire(store, "learner")
        store.put("data/ballast", b"x" * 700_000)
        with contextlib.suppress(OSError), open(tmp_path / "rest", "wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        before = store.list("")
        for write in (
            lambda: commit(store, PLAN, FIRST, 0, rows_of(PLAN, FIRST)),
            lambda: create_seal(store, Seal(run=RUN, kind="rollout", iteration=3, units=())),
            lambda: publish_policy(store, owner, 1, [("model.safetensors", b"w" * 9000)], {}),
        ):
            with pytest.raises(StorageFull, match="could not be written"):
                write()
        assert store.list("") == before
        store.delete("data/ballast")
        assert commit(store, PLAN, FIRST, 0, rows_of(PLAN, FIRST))
        assert read_unit(store, PLAN, FIRST, 0)[0] == rows_of(PLAN, FIRST)
        publish_policy(store, owner, 1, [("model.safetensors", b"w" * 9000)], {})
        assert policies(store) == [1]
