import pytest
from rundir_samples import a_plan, new_run, rows_of

from empg.rundir.claims import Claim, claim, fail, release, survey
from empg.rundir.heartbeat import Liveness, SamplerRecord, read_records, write_record
from empg.rundir.records import CorruptRecord
from empg.rundir.units import commit, reject

PLAN = a_plan()
FIRST, SECOND = (unit.name for unit in PLAN.units)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def liveness(clock: Clock) -> Liveness:
    return Liveness(10, clock)


@pytest.fixture
def store(tmp_path):
    return new_run(tmp_path)


def beat(store, sampler="s", incarnation="1", progress=0):
    write_record(store, SamplerRecord(id=sampler, incarnation=incarnation, counter=0, progress=progress, policy=2))


def states(store, liveness) -> dict[str, tuple[str, int, int]]:
    found = survey(store, [PLAN], liveness)
    return {name: (status.state, status.attempt, status.failures) for name, status in found.items()}


def test_a_claim_has_one_winner_and_repeats_itself(store):
    assert claim(store, PLAN, FIRST, 0, "s", "1", 2)
    assert claim(store, PLAN, FIRST, 0, "s", "1", 2), "a lost reply is no loss"
    assert not claim(store, PLAN, FIRST, 0, "t", "1", 2)
    assert not claim(store, PLAN, FIRST, 0, "s", "2", 2)


def test_claims_open_close_and_open_again(store, liveness):
    beat(store)
    assert states(store, liveness) == {FIRST: ("open", 0, 0), SECOND: ("open", 0, 0)}
    claim(store, PLAN, FIRST, 0, "s", "1", 2)
    held = survey(store, [PLAN], liveness)[FIRST]
    assert (held.state, held.holder, held.incarnation, held.policy) == ("held", "s", "1", 2)
    release(store, PLAN, FIRST, 0, Claim(sampler="s", incarnation="1", policy=2))
    assert states(store, liveness)[FIRST] == ("open", 1, 0)
    claim(store, PLAN, FIRST, 1, "s", "1", 2)
    fail(store, PLAN, FIRST, 1, Claim(sampler="s", incarnation="1", policy=2), "engine died")
    assert states(store, liveness)[FIRST] == ("open", 2, 1)
    claim(store, PLAN, FIRST, 2, "s", "1", 2)
    commit(store, PLAN, FIRST, 2, rows_of(PLAN, FIRST))
    assert states(store, liveness)[FIRST] == ("committed", 2, 0)
    reject(store, PLAN, FIRST, 2, "truncated")
    assert states(store, liveness) == {FIRST: ("open", 3, 2), SECOND: ("open", 0, 0)}


def test_a_dead_holder_loses_its_claims_after_a_lease(store, liveness, clock):
    beat(store)
    claim(store, PLAN, FIRST, 0, "s", "1", 2)
    assert states(store, liveness)[FIRST] == ("held", 0, 0)
    clock.now += 9.9
    liveness.observe(read_records(store))
    assert states(store, liveness)[FIRST] == ("held", 0, 0)
    clock.now += 10.2
    assert states(store, liveness)[FIRST] == ("open", 1, 1)


def test_a_slow_holder_keeps_its_claim(store, liveness, clock):
    claim(store, PLAN, FIRST, 0, "s", "1", 2)
    for progress in range(5):
        beat(store, progress=progress)
        assert states(store, liveness)[FIRST] == ("held", 0, 0)
        clock.now += 11  # Nobody looked meanwhile: the survey itself must look before it buries anyone.


def test_three_dead_holders_make_a_unit_void(store, liveness):
    for attempt in range(3):
        claim(store, PLAN, FIRST, attempt, "s", f"old-{attempt}", 2)
        beat(store, incarnation=f"new-{attempt}")
        liveness.observe(read_records(store))
        expected = ("open", attempt + 1, attempt + 1) if attempt < 2 else ("void", 2, 3)
        assert states(store, liveness)[FIRST] == expected


def test_a_sampler_that_started_after_our_last_look_is_not_robbed(store, liveness):
    beat(store, incarnation="1")
    liveness.observe(read_records(store))
    beat(store, incarnation="2")
    claim(store, PLAN, FIRST, 0, "s", "2", 2)
    assert states(store, liveness)[FIRST] == ("held", 0, 0)


def test_rounds_of_an_iteration_are_surveyed_together(store, liveness):
    renamed = tuple(unit.model_copy(update={"name": f"01-{unit.name[3:]}"}) for unit in PLAN.units)
    refill = PLAN.model_copy(update={"round": 1, "units": renamed})
    claim(store, refill, "01-0000", 0, "s", "1", 2)
    found = survey(store, [PLAN, refill], liveness)
    assert {name: status.state for name, status in found.items()} == {
        "00-0000": "open",
        "00-0001": "open",
        "01-0000": "held",
        "01-0001": "open",
    }
    assert survey(store, [], liveness) == {}


@pytest.mark.parametrize("content", [b"", b"{}", b"garbage", b"\0" * 300])
def test_garbage_claims_are_named_and_not_used(store, liveness, content):
    store.put(f"rollout/000003/claims/{FIRST}.0", content)
    with pytest.raises(CorruptRecord, match=rf"rollout/000003/claims/{FIRST}\.0"):
        survey(store, [PLAN], liveness)


@pytest.mark.parametrize("name", ["claims/notes.txt", "units/00-0000.parquet", "units/00-0000.01.parquet", "rejects/x"])
def test_foreign_files_are_named(store, liveness, name):
    store.put(f"rollout/000003/{name}", b"")
    with pytest.raises(CorruptRecord, match=f"rollout/000003/{name}"):
        survey(store, [PLAN], liveness)
