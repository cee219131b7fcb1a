"""Time that a run spends, and time that it does not."""

import pytest
from plan_samples import NOW, job, situation

from empg_operator.plan.attempts import obsolete, start, tally
from empg_operator.plan.suspension import Spent, halted, spent
from empg_operator.plan.times import stamp


@pytest.mark.parametrize(
    ("status", "running", "expected"),
    [
        ({}, True, Spent(0, stamp(NOW))),
        ({}, False, Spent(0, None)),
        ({"activeSeconds": 5, "activeSince": stamp(NOW - 7)}, True, Spent(5, stamp(NOW - 7))),
        ({"activeSeconds": 5, "activeSince": stamp(NOW - 7)}, False, Spent(12, None)),
        ({"activeSeconds": 12}, False, Spent(12, None)),
        ({"activeSeconds": 12}, True, Spent(12, stamp(NOW))),
        # A clock that was set back takes no time away.
        ({"activeSeconds": 5, "activeSince": stamp(NOW + 100)}, False, Spent(5, None)),
    ],
)
def test_the_clock_stands_still_while_the_run_does(status: dict, running: bool, expected: Spent) -> None:
    assert spent(situation(status=status), running=running) == expected


def test_when_a_limit_is_reached() -> None:
    assert Spent(30, stamp(NOW)).ends(100) == NOW + 70
    assert Spent(30, stamp(NOW)).ends(None) is None
    assert Spent(30, None).ends(100) is None
    assert Spent(30, stamp(NOW - 5)).total(NOW) == 35


@pytest.mark.parametrize(
    ("suspend", "queued", "expected"), [(False, False, False), (True, False, True), (False, True, True)]
)
def test_user_and_queue_halt_a_run(suspend: bool, queued: bool, expected: bool) -> None:
    assert halted(situation(job(1, suspend=queued), spec={"suspend": suspend})) == expected


def test_an_ended_job_queues_for_nothing() -> None:
    assert not halted(situation(job(1, suspend=True, failed="x")))


def test_a_job_whose_end_came_with_its_suspension_queues_for_nothing() -> None:
    message = "Container learner for pod team/x failed with exit code 75 matching FailJob rule at index 3"
    target = {"type": "FailureTarget", "status": "True", "reason": "PodFailurePolicy", "message": message}
    stopped = job(1, suspend=True)
    stopped["status"]["conditions"] = [{"type": "Suspended", "status": "True"}, target]
    seen = situation(stopped, status={"attempt": 1})
    counted = tally(seen, over=False)
    assert not halted(seen)
    assert [(judged.end, judged.message) for judged in counted.ends] == [("Retry", message)]
    assert counted.restarts == 0
    assert start(seen, counted, None, cleared=True) is None, "the queue is to forget the one before"
    judged = situation(stopped, status={"attempt": 1, "judgedAttempt": 1})
    assert [each.attempt for each in obsolete(judged, stop=False)] == [1]
