"""Events tell of changes, once."""

import pytest
from plan_samples import NOW, Steps, progress


def running() -> Steps:
    steps = Steps()
    steps.settle()
    steps.replace_job(1, ready=1)
    steps.settle()
    steps.roll_out()
    steps.report(progress=progress())
    steps.settle()
    return steps


def since(steps: Steps, seen: int) -> list[tuple[str, str]]:
    return [(event.type, event.reason) for done in steps.done[seen:] for event in done.events]


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({"rule": 0}, [("Warning", "LearnerFailed"), ("Warning", "Failed")]),
        ({"rule": 1}, [("Warning", "LearnerFailed"), ("Warning", "Failed")]),
        ({"rule": 2}, [("Normal", "Evicted"), ("Normal", "AttemptStarted")]),
        ({"rule": 3}, [("Normal", "LearnerStopped"), ("Normal", "AttemptStarted")]),
        ({"failed": "x"}, [("Warning", "LearnerFailed")]),
        ({"complete": True}, [("Normal", "Completed"), ("Normal", "SamplersScaled")]),
    ],
)
def test_the_end_of_an_attempt(state: dict, told: list[tuple[str, str]]) -> None:
    steps = running()
    seen = len(steps.done)
    steps.replace_job(1, **state)
    steps.settle()
    found = since(steps, seen)
    assert [each for each in found if each[1] != "SamplersScaled"] == [
        each for each in told if each[1] != "SamplersScaled"
    ]
    assert ("SamplersScaled" in [reason for _, reason in found]) == (steps.samplers() == 0)
    steps.settle()
    assert since(steps, seen) == found


def test_a_job_that_its_user_deleted() -> None:
    steps = running()
    seen = len(steps.done)
    del steps.children["Job", "demo-learner-1"]
    steps.now = NOW + 60
    steps.settle()
    assert since(steps, seen) == [("Normal", "LearnerStopped"), ("Normal", "AttemptStarted")]


def test_scaling() -> None:
    steps = running()
    seen = len(steps.done)
    steps.edit({"sampler": {"replicas": 5}})
    steps.settle()
    assert since(steps, seen) == [("Normal", "SamplersScaled")]
    assert steps.done[seen].events[0].message == "From 2 to 5 samplers."


def test_messages_are_cut() -> None:
    steps = running()
    seen = len(steps.done)
    steps.replace_job(1, failed="x" * 5000)
    steps.settle()
    assert [len(event.message) for done in steps.done[seen:] for event in done.events] == [500]
