"""Time that a run spends, and time that it does not."""

import pytest
from plan_samples import NOW, job, situation

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
