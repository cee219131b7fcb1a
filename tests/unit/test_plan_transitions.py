"""Events tell of changes, once."""

import re
from typing import Any

import pytest
from plan_samples import NOW, Steps, pod, progress

from empg_operator import names


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


def test_what_a_job_says_is_told_as_a_sentence() -> None:
    steps = running()
    steps.replace_job(1, rule=3)
    steps.settle()
    [told] = [event.message for done in steps.done for event in done.events if event.reason == "LearnerStopped"]
    assert re.search(r"[^.]\. It costs no restart\.$", told)


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


def test_what_keeps_pods_from_running_is_told_once() -> None:
    steps = Steps()
    steps.pods = [unschedulable("learner")]
    steps.settle()
    steps.now += 60
    steps.settle()
    told = [event for done in steps.done for event in done.events if event.reason == "Unschedulable"]
    assert [event.type for event in told] == ["Warning"]
    assert "Insufficient gpus" in told[0].message


def test_a_deadline_says_what_the_pods_waited_for() -> None:
    steps = Steps({"deadlines": {"pendingSeconds": 100}})
    steps.pods = [unschedulable("learner")]
    steps.settle()
    steps.now += 50
    steps.settle()
    steps.now += 51
    steps.settle()
    assert steps.said("Failed") == ("True", "PendingDeadlineExceeded")
    [failed] = [each for each in steps.status()["conditions"] if each["type"] == "Failed"]
    assert "Insufficient gpus" in failed["message"]


def test_why_a_learner_stopped_is_told() -> None:
    steps = running()
    seen = len(steps.done)
    stopped = unschedulable("learner")
    words = {"terminated": {"exitCode": 75, "reason": "Error", "message": "free space on its volume, or enlarge it"}}
    stopped["status"] = {"phase": "Failed", "containerStatuses": [{"name": "learner", "state": words}]}
    steps.pods = [stopped]
    steps.replace_job(1, rule=3)
    steps.settle()
    [told] = [event for done in steps.done[seen:] for event in done.events if event.reason == "LearnerStopped"]
    assert "free space on its volume" in told.message


def unschedulable(role: names.Role) -> dict[str, Any]:
    found = pod(f"demo-{role}-1-0-x", role, phase="Pending", age=0)
    found["metadata"]["labels"][names.ATTEMPT_LABEL] = "1"
    why = {"reason": "Unschedulable", "message": "Insufficient gpus."}
    found["status"]["conditions"] = [{"type": "PodScheduled", "status": "False", **why}]
    return found
