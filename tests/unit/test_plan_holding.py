"""Half of what a run needs is not kept for ever."""

from typing import Any

import pytest
from plan_samples import NOW, Steps, deployment, diagnosis, job, pod, progress, situation

from empg_operator.plan.holding import MAX_PAUSE_SECONDS, PAUSE_SECONDS, holding, pause, releases
from empg_operator.plan.times import stamp

ENDING = {**job(1, pods=2), "status": {"ready": 1, "conditions": [{"type": "FailureTarget", "status": "True"}]}}


@pytest.mark.parametrize(
    ("children", "pods", "alternate", "held"),
    [
        # Nothing is held; all is there.
        ([job(1, pods=2)], None, False, False),
        ([job(1, pods=2, ready=2), deployment(2, ready=1)], None, False, False),
        # A part of the learner; only the learner; only samplers.
        ([job(1, pods=2, ready=1)], None, False, True),
        ([job(1, ready=1), deployment(2)], None, False, True),
        ([job(1), deployment(2, ready=2)], None, False, True),
        ([deployment(2, ready=1)], None, False, True),
        # The samplers are about to be asked for, or are refused.
        ([job(1, ready=1), deployment(0)], None, False, True),
        ([job(1, ready=1)], None, False, True),
        # A sampler has its devices and loads its first policy.
        ([job(1, ready=1), deployment(2)], ["Running"], False, False),
        ([job(1, ready=1), deployment(2)], ["Pending"], False, True),
        # Who takes turns needs only one of both.
        ([job(1, ready=1), deployment(0)], None, True, False),
        ([job(1, pods=2, ready=1), deployment(0)], None, True, True),
    ],
)
def test_what_is_held_in_vain(children: list[Any], pods: list[str] | None, alternate: bool, held: bool) -> None:
    look = None if pods is None else diagnosis(*(pod("demo-sampler-a", "sampler", phase=phase) for phase in pods))
    spec = {"sampler": {"rollStrategy": "Alternate" if alternate else "InPlace"}}
    found = holding(situation(*children, spec=spec, diagnosis=look), "learner", running=True)
    assert found.since == (stamp(NOW) if held else None)


@pytest.mark.parametrize(
    ("phase", "held"), [("sampling", True), ("evaluating", True), ("learning", False), ("publishing", False)]
)
def test_a_learner_that_works_is_not_held_in_vain(phase: str, held: bool) -> None:
    look = diagnosis(pod("demo-sampler-a", "sampler", phase="Pending"))
    seen = situation(
        job(1, ready=1), deployment(2), status={"attempt": 1, "progress": progress(phase=phase)}, diagnosis=look
    )
    assert holding(seen, "learner", running=True).since == (stamp(NOW) if held else None)


def test_a_run_that_is_halted_holds_nothing() -> None:
    assert holding(situation(job(1, pods=2, ready=1)), "learner", running=False).since is None


def test_the_samplers_turn_holds_nothing_in_vain() -> None:
    assert holding(situation(deployment(2, ready=1)), "samplers", running=True).since is None


def test_a_job_that_is_about_to_end_changes_nothing() -> None:
    status = {"heldSince": stamp(NOW - 10_000)}
    assert holding(situation(ENDING, status=status), "learner", running=True) == holding(
        situation(ENDING, status=status, now=NOW + 1), "learner", running=True
    )
    assert holding(situation(ENDING), "learner", running=True).since is None


@pytest.mark.parametrize(
    ("age", "limit", "release"), [(899, 900, False), (900, 900, True), (10_000, None, False), (20, 10, True)]
)
def test_how_long_a_part_is_held(age: float, limit: float | None, release: bool) -> None:
    status = {"heldSince": stamp(NOW - age)}
    seen = situation(job(1, pods=2, ready=1), spec={"deadlines": {"holdSeconds": limit}}, status=status)
    found = holding(seen, "learner", running=True)
    assert (found.since, found.release) == (stamp(NOW - age), release)
    assert found.ends == (None if limit is None else NOW - age + limit)


def test_whether_samplers_have_devices_needs_a_look() -> None:
    status = {"heldSince": stamp(NOW - 1000)}
    children = (job(1, ready=1), deployment(2))
    assert not holding(situation(*children, status=status), "learner", running=True).release
    waiting = diagnosis(pod("demo-sampler-a", "sampler", phase="Pending"))
    assert holding(situation(*children, status=status, diagnosis=waiting), "learner", running=True).release


def test_runs_pause_differently_and_each_the_same_every_time() -> None:
    pauses = [pause(f"uid-{n}", 1) for n in range(200)]
    assert all(PAUSE_SECONDS[0] <= each <= PAUSE_SECONDS[1] for each in pauses)
    assert len({round(each) for each in pauses}) > 50
    assert pause("uid-1", 1) == pauses[1] != pause("uid-1", 2)


def test_a_run_that_gets_nowhere_pauses_longer_each_time_up_to_an_hour() -> None:
    first = pause("uid-1", 1)
    assert [pause("uid-1", 1, releases) for releases in (1, 2, 3)] == [first, 2 * first, 4 * first]
    assert pause("uid-1", 1, 8) == pause("uid-1", 1, 10_000) == MAX_PAUSE_SECONDS


@pytest.mark.parametrize(("iteration", "counted"), [(None, 3), (2, 3), (3, 1)])
def test_an_iteration_that_was_finished_makes_the_pause_short_again(iteration: int | None, counted: int) -> None:
    status: dict[str, Any] = {"attempt": 4, "attemptIteration": 2, "releases": 2}
    if iteration is not None:
        status["progress"] = progress(attempt=4, iteration=iteration)
    assert releases(situation(job(4), status=status), release=True) == counted
    assert releases(situation(job(4), status=status), release=False) == counted - 1


def test_all_is_given_back_and_tried_again_at_no_cost() -> None:
    steps = Steps({"learner": {"nodes": 2}, "deadlines": {"holdSeconds": 100}})
    steps.settle()
    steps.replace_job(1, pods=2, ready=1)
    last = steps.settle()
    assert last.requeue_after == 20, "the next look"
    steps.now = NOW + 100
    steps.settle()
    assert (steps.jobs(), steps.samplers()) == ([], 0)
    assert "Released" in steps.events()
    assert steps.said("LearnerReady") == ("False", "Released")
    again = steps.settle().requeue_after
    assert again is not None
    assert PAUSE_SECONDS[0] <= again <= PAUSE_SECONDS[1] + 1
    steps.now += again
    steps.settle()
    assert steps.jobs() == ["demo-learner-2"]
    assert (steps.status()["restarts"], steps.status()["unchargedEnds"]) == (0, 0)


def test_samplers_whose_learner_finds_no_place_are_given_back() -> None:
    steps = Steps({"deadlines": {"holdSeconds": 100}})
    steps.settle()
    steps.replace_job(1, ready=1)
    steps.settle()
    steps.roll_out()
    steps.settle()
    steps.replace_job(1, rule=2)
    steps.settle()
    assert (steps.jobs(), steps.samplers()) == (["demo-learner-1", "demo-learner-2"], 2)
    steps.now = NOW + 100
    steps.settle()
    steps.roll_out()
    steps.settle()
    assert (steps.jobs(), steps.samplers()) == (["demo-learner-1"], 0)
