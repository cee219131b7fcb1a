"""When a sampler that shares its GPU with the learner takes it back."""

from pathlib import Path

import pytest
from rundir_samples import a_plan, new_run

from empg.rundir.heartbeat import read_record
from empg.rundir.progress import Phase, Progress, write_progress
from empg.store.posix import PosixStore
from empg_sampler.choose import Board, OpenUnit
from empg_sampler.pulse import Pulse
from empg_sampler.rest import Rest

NOTHING = Board((), (), frozenset())


def say(store: PosixStore, phase: Phase) -> None:
    write_progress(store, Progress(attempt=1, iteration=0, iterations=9, phase=phase))


@pytest.fixture
def rest(tmp_path: Path) -> Rest:
    store = new_run(tmp_path)
    return Rest(store, Pulse(store, "me", "x1"), shared=True)


def board(minimum: int) -> Board:
    plan = a_plan(min_policy=minimum)
    return Board((OpenUnit(plan, plan.units[0], 0),), (), frozenset())


def test_the_gpu_is_the_learners_while_it_trains_and_no_longer(rest: Rest) -> None:
    assert not rest.due()
    for phase, due in (("sampling", False), ("learning", True), ("publishing", False)):
        say(rest.store, phase)  # type: ignore[arg-type]
        assert rest.due() is due


@pytest.mark.parametrize(
    ("phase", "may"),
    [(None, False), ("starting", False), ("learning", False), ("sampling", True), ("evaluating", True)],
)
def test_no_engine_starts_beside_a_learner_that_starts(rest: Rest, phase: Phase | None, may: bool) -> None:
    if phase is not None:
        say(rest.store, phase)
    assert rest.may_start() is may
    if not may:
        before = read_record(rest.store, "me")
        assert rest.may_start() is may
        assert read_record(rest.store, "me") == before, "it looks often, and writes only what is new"
    alone = Rest(rest.store, rest.pulse, shared=False)
    assert alone.may_start()


def test_who_shares_no_gpu_never_rests(tmp_path: Path) -> None:
    store = new_run(tmp_path)
    say(store, "learning")
    assert not Rest(store, Pulse(store, "me", "x1"), shared=False).due()


def test_it_wakes_up_for_a_newer_policy_or_for_work_and_for_nothing_else(rest: Rest) -> None:
    rest.begin(3)
    assert (rest.asleep, read_record(rest.store, "me").asleep) == (True, True)
    say(rest.store, "publishing")
    assert not rest.may_end(3, 3, NOTHING)
    assert not rest.may_end(3, 3, board(minimum=4))
    assert read_record(rest.store, "me").asleep
    assert rest.may_end(3, 3, board(minimum=3))
    assert rest.may_end(3, 4, NOTHING)
    record = read_record(rest.store, "me")
    assert (record.asleep, record.loading) == (False, 4)


def test_a_learner_that_has_begun_meanwhile_finds_it_asleep(rest: Rest) -> None:
    rest.begin(3)
    say(rest.store, "learning")
    assert not rest.may_end(3, 4, NOTHING)
    assert read_record(rest.store, "me").asleep
    assert rest.asleep


def test_an_engine_starts_when_the_learner_has_left_the_gpu(rest: Rest) -> None:
    say(rest.store, "learning")
    assert not rest.may_start()
    assert not rest.may_start()
    record = read_record(rest.store, "me")
    assert (record.asleep, record.policy, record.counter) == (True, None, 1)
    say(rest.store, "publishing")
    assert rest.may_start()
    assert not read_record(rest.store, "me").asleep
    assert not rest.asleep
