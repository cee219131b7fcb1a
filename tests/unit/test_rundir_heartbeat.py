import pytest
from rundir_samples import new_run

from empg.rundir.heartbeat import LOAD_LEASES, Liveness, SamplerRecord, read_records, write_record
from empg.rundir.records import CorruptRecord


def record(sampler: str = "s", incarnation: str = "1", counter: int = 0, progress: int = 0) -> SamplerRecord:
    return SamplerRecord(id=sampler, incarnation=incarnation, counter=counter, progress=progress, policy=None)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def liveness(clock: Clock) -> Liveness:
    return Liveness(10, clock)


def test_records_are_read_back(tmp_path):
    store = new_run(tmp_path)
    write_record(store, record("b"))
    write_record(store, record("a", counter=1))
    write_record(store, record("a", counter=2))
    assert read_records(store) == [record("a", counter=2), record("b")]


def test_a_record_under_another_name_is_refused(tmp_path):
    store = new_run(tmp_path)
    write_record(store, record("a"))
    store.put("samplers/b.json", store.get("samplers/a.json"))
    with pytest.raises(CorruptRecord, match=r"samplers/b.json: is the record of sampler 'a'"):
        read_records(store)


@pytest.mark.parametrize("sampler", ["", "a/b", "../x", ".a", "a b", "x" * 129])
def test_odd_sampler_ids_are_refused(tmp_path, sampler):
    with pytest.raises(ValueError, match="sampler id"):
        write_record(new_run(tmp_path), record(sampler))


def test_progress_that_stands_still_for_a_lease_is_death(liveness, clock):
    liveness.observe([record()])
    clock.now += 9.9
    assert not liveness.dead("s", "1")
    clock.now += 0.2
    assert liveness.dead("s", "1")


def test_progress_renews_the_lease_and_heartbeats_alone_do_not(liveness, clock):
    for step in range(5):
        liveness.observe([record(progress=step, counter=step)])
        assert not liveness.dead("s", "1")
        clock.now += 9
    liveness.observe([record(progress=4, counter=5)])
    clock.now += 2
    assert liveness.dead("s", "1")
    assert not liveness.silent("s")


def test_who_loads_a_policy_lives_by_its_heartbeats_for_a_while(liveness, clock):
    for counter in range(LOAD_LEASES):
        liveness.observe([record(counter=counter).model_copy(update={"loading": 3})])
        assert not liveness.dead("s", "1")
        clock.now += 9.9
    liveness.observe([record(counter=LOAD_LEASES).model_copy(update={"loading": 3})])
    clock.now += 9.9
    liveness.observe([record(counter=LOAD_LEASES + 1).model_copy(update={"loading": 3})])
    clock.now += 0.2
    assert liveness.dead("s", "1"), "a load that never ends"
    liveness.observe([record(counter=LOAD_LEASES + 2).model_copy(update={"loading": 4})])
    assert not liveness.dead("s", "1")


def test_who_stopped_while_it_loads_a_policy_is_dead(liveness, clock):
    liveness.observe([record().model_copy(update={"loading": 3})])
    clock.now += 10
    liveness.observe([record().model_copy(update={"loading": 3})])
    assert liveness.dead("s", "1")


def test_a_stopped_holder_that_moves_again_is_alive(liveness, clock):
    liveness.observe([record()])
    clock.now += 11
    assert liveness.dead("s", "1")
    liveness.observe([record(progress=1)])
    assert not liveness.dead("s", "1")


def test_another_incarnation_is_death_at_once(liveness):
    liveness.observe([record(incarnation="1")])
    liveness.observe([record(incarnation="2")])
    assert liveness.dead("s", "1")
    assert not liveness.dead("s", "2")


def test_a_holder_without_a_record_is_dead_after_a_lease(liveness, clock):
    assert not liveness.dead("s", "1")
    clock.now += 9.9
    assert not liveness.dead("s", "1")
    clock.now += 0.2
    assert liveness.dead("s", "1")
    liveness.observe([record()])
    assert not liveness.dead("s", "1")


def test_a_lease_starts_no_earlier_than_its_claim(liveness, clock):
    liveness.observe([record()])
    clock.now += 60  # Idle: heartbeats, but nothing to make progress with.
    assert not liveness.dead("s", "1", "claims/u.0")
    clock.now += 9.9
    assert not liveness.dead("s", "1", "claims/u.0")
    clock.now += 0.2
    assert liveness.dead("s", "1", "claims/u.0")
    liveness.forget(["claims/u.0"])
    assert not liveness.dead("s", "1", "claims/u.0")


def test_silence(liveness, clock):
    liveness.observe([record(counter=1)])
    clock.now += 9
    assert not liveness.silent("s")
    liveness.observe([record(counter=2)])
    clock.now += 9
    assert not liveness.silent("s")
    clock.now += 2
    assert liveness.silent("s")
    assert not liveness.silent("never seen")
    clock.now += 10
    assert liveness.silent("never seen")


def test_a_sampler_beats_once_it_was_seen_to(liveness, clock):
    """A record alone may be that of a pod that went before we looked first."""
    assert not liveness.beating("s")
    liveness.observe([record(counter=4)])
    assert not liveness.beating("s")
    liveness.observe([record(counter=5)])
    assert liveness.beating("s")
    clock.now += 10.1
    assert not liveness.beating("s")
    liveness.observe([record(incarnation="2")])
    assert liveness.beating("s")
