"""How many samplers are wanted, and how often their number is written down."""

from typing import Any

import pytest
from plan_samples import NOW, deployment, job, situation

from empg.api.status import SamplerCount
from empg_operator.plan.samplers import count, replicas
from empg_operator.plan.times import stamp

ALTERNATE = {"sampler": {"rollStrategy": "Alternate"}}


@pytest.mark.parametrize(
    ("children", "judged", "wanted"),
    [
        # Up from zero when all pods of the learner run, and not before.
        ([], 0, 0),
        ([job(1)], 0, 0),
        ([job(1, pods=2, ready=1), deployment(0)], 0, 0),
        ([job(1, pods=2, ready=2), deployment(0)], 0, 2),
        ([job(1, ready=1)], 0, 2),
        # They stay while the learner is restarted, and follow the spec.
        ([job(1), deployment(2)], 0, 2),
        ([job(1, failed="x"), deployment(1)], 1, 2),
        ([deployment(5)], 1, 2),
        # An attempt that is given up takes its samplers with it.
        ([job(1, ready=1), deployment(2)], 1, 0),
    ],
)
def test_how_many_are_wanted(children: list[Any], judged: int, wanted: int) -> None:
    seen = situation(*children, status={"attempt": 1, "judgedAttempt": judged})
    assert replicas(seen, "learner", stopped=False, released=False) == wanted
    assert replicas(seen, "learner", stopped=True, released=False) == 0
    assert replicas(seen, "learner", stopped=False, released=True) == 0


def test_none_are_wanted_where_the_spec_wants_none() -> None:
    seen = situation(job(1, ready=1), deployment(2), spec={"sampler": {"replicas": 0}}, status={"attempt": 1})
    assert replicas(seen, "learner", stopped=False, released=False) == 0


def test_turns() -> None:
    seen = situation(job(1, ready=1), deployment(2), spec=ALTERNATE, status={"attempt": 1})
    assert replicas(seen, "learner", stopped=False, released=False) == 0
    assert replicas(seen, "samplers", stopped=False, released=False) == 2


@pytest.mark.parametrize(
    ("before", "ready", "age", "written"),
    [
        # Whether there are any, and whether all are ready, is told at once; the rest after a while.
        (SamplerCount(), 0, 0, True),
        (SamplerCount(desired=4, replicas=4, ready=0, summary="0/4"), 1, 0, True),
        (SamplerCount(desired=4, replicas=4, ready=1, summary="1/4"), 2, 0, False),
        (SamplerCount(desired=4, replicas=4, ready=1, summary="1/4"), 2, 14, False),
        (SamplerCount(desired=4, replicas=4, ready=1, summary="1/4"), 2, 15, True),
        (SamplerCount(desired=4, replicas=4, ready=3, summary="3/4"), 4, 0, True),
        (SamplerCount(desired=4, replicas=4, ready=3, summary="3/4"), 0, 0, True),
        (SamplerCount(desired=2, replicas=2, ready=2, summary="2/2"), 2, 0, True),
        # A clock that was set back must not keep the count as it is.
        (SamplerCount(desired=4, replicas=4, ready=1, summary="1/4"), 2, -100, True),
    ],
)
def test_when_a_new_count_is_written(before: SamplerCount, ready: int, age: float, written: bool) -> None:
    counted = before.model_copy(update={"counted": stamp(NOW - age)})
    status = {"samplers": counted.model_dump(by_alias=True)}
    found = count(situation(deployment(4, ready=ready), status=status), 4)
    assert (found.count.ready == ready, found.count.counted == stamp(NOW)) == (written, written or age == 0)
    assert found.again == (None if written else NOW - age + 15)


def test_the_same_count_is_not_written_again() -> None:
    counted = SamplerCount(desired=4, replicas=4, ready=2, summary="2/4", counted=stamp(NOW - 500))
    status = {"samplers": counted.model_dump(by_alias=True)}
    assert count(situation(deployment(4, ready=2), status=status), 4).count == counted
