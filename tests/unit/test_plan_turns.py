"""Samplers and learner take turns on the same devices."""

from typing import Any

import pytest
from plan_samples import NAME, Steps, deployment, job, progress, situation

from empg_operator import names
from empg_operator.plan.attempts import tally
from empg_operator.plan.turns import cleared, turn

ALTERNATE = {"sampler": {"rollStrategy": "Alternate"}}


@pytest.mark.parametrize(
    ("children", "status", "expected"),
    [
        ([], {}, "learner"),
        ([job(1)], {"attempt": 1}, "learner"),
        ([job(1, rule=4)], {"attempt": 1}, "samplers"),
        ([job(1, rule=4)], {"attempt": 1, "judgedAttempt": 1, "turn": "samplers"}, "samplers"),
        ([job(1, rule=4)], {"attempt": 1, "judgedAttempt": 1, "turn": "samplers", "sampled": 1}, "learner"),
        # What was sampled for an older attempt is not what this one planned.
        ([job(2, rule=4)], {"attempt": 2, "judgedAttempt": 2, "turn": "samplers", "sampled": 1}, "samplers"),
        ([job(2, failed="x")], {"attempt": 2, "judgedAttempt": 1, "sampled": 1}, "learner"),
        # The next attempt was started, and that was not written down.
        ([job(1, rule=4), job(2)], {"attempt": 1, "judgedAttempt": 1, "turn": "samplers", "sampled": 1}, "learner"),
        # Somebody deleted the Job that had left for the samplers.
        ([], {"attempt": 1, "judgedAttempt": 1, "turn": "samplers"}, "samplers"),
    ],
)
def test_whose_turn_it_is(children: list[Any], status: dict[str, Any], expected: str) -> None:
    seen = situation(*children, spec=ALTERNATE, status=status)
    assert turn(seen, tally(seen, over=False)) == expected


def test_nobody_else_takes_turns() -> None:
    seen = situation(job(1, rule=4), status={"attempt": 1, "turn": "samplers"})
    counted = tally(seen, over=False)
    assert (turn(seen, counted), counted.last) == ("learner", "Crashed")


@pytest.mark.parametrize(
    ("child", "free"),
    [
        (None, True),
        (deployment(0), True),
        (deployment(0, created=1), False),
        (deployment(2), False),
        (deployment(0, observedGeneration=0), False),
    ],
)
def test_when_the_samplers_have_left(child: Any, free: bool) -> None:
    children = [] if child is None else [child]
    assert cleared(situation(*children, spec=ALTERNATE)) == free
    assert cleared(situation(*children))


def test_an_iteration_of_turns() -> None:
    steps = Steps(ALTERNATE)
    steps.settle()
    steps.replace_job(1, ready=1)
    steps.settle()
    assert steps.samplers() == 0
    steps.report(progress=progress())
    seen = len(steps.done)
    steps.replace_job(1, rule=4)
    steps.settle()
    deployed = steps.children["Deployment", names.sampler_deployment(NAME)]
    variables = {
        each["name"]: each.get("value") for each in deployed["spec"]["template"]["spec"]["containers"][0]["env"]
    }
    assert (steps.samplers(), variables["EMPG_ATTEMPT"]) == (2, "1")
    assert (steps.status()["phase"], steps.said("LearnerReady")) == ("Sampling", ("False", "WaitingForSamplers"))
    steps.roll_out()
    steps.settle()
    assert steps.said("Ready") == ("True", "Running")
    steps.report(sampled=1)
    steps.settle()
    assert (steps.samplers(), steps.jobs()) == (0, ["demo-learner-1"]), "the samplers still have the devices"
    steps.roll_out()
    steps.settle()
    assert steps.jobs() == ["demo-learner-1", "demo-learner-2"]
    assert steps.status()["restarts"] == steps.status()["unchargedEnds"] == 0
    assert "nextAttemptTime" not in steps.status()
    assert [event.reason for done in steps.done[seen:] for event in done.events] == []


def test_what_turns_cost() -> None:
    """Two Jobs and two scalings more than other strategies, and what is said of them."""
    steps = Steps(ALTERNATE)
    steps.settle()
    writes = []
    for attempt in (1, 2, 3):
        seen = len(steps.done)
        steps.replace_job(attempt, ready=1)
        steps.settle()
        trained = max(attempt - 2, 0)
        for phase, iteration in (("learning", trained), ("sampling", attempt - 1)):
            steps.report(progress=progress(attempt=attempt, iteration=iteration, phase=phase))
            steps.settle()
            assert steps.status()["phase"] == "Learning"
        steps.replace_job(attempt, rule=4)
        steps.settle()
        steps.roll_out()
        steps.settle()
        steps.report(sampled=attempt)
        steps.settle()
        steps.roll_out()
        steps.settle()
        made = steps.done[seen:]
        assert not [event for done in made for event in done.events]
        writes.append(sum(len((*each.apply, *each.create, *each.delete)) + (each.status is not None) for each in made))
    assert writes[1:] == [10, 10]
