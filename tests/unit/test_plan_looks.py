"""When a look at the pods is worth its requests, and what becomes of what it showed."""

from typing import Any

import pytest
from plan_samples import NOW, Steps, condition, deployment, diagnosis, job, pod, refused_pod, situation

from empg.api.status import Clock
from empg_operator.conditions import MESSAGE_CHARACTERS
from empg_operator.plan.attempts import tally
from empg_operator.plan.looks import Look, last_words, look
from empg_operator.plan.times import stamp


def asked(
    *children: Any, wait: Any = "pods", since: float = NOW, desired: int = 0, turn: Any = "learner", **more: Any
) -> Look:
    seen = situation(*children, **more)
    return look(seen, tally(seen, over=False), turn, Clock(waiting_for=wait, since=stamp(since)), desired)


def started(age: float) -> dict[str, Any]:
    return {"attempt": 1, "attemptStartTime": stamp(NOW - age)}


@pytest.mark.parametrize(
    ("age", "taken", "expected"),
    [
        (0, None, Look(False, NOW + 20)),
        (19, None, Look(False, NOW + 1)),
        (20, None, Look(True)),
        (500, 59, Look(False, NOW + 1)),
        (500, 61, Look(True)),
        # An earlier attempt was looked at.
        (0, 10, Look(False, NOW + 50)),
    ],
)
def test_pods_of_the_learner_that_do_not_come(age: float, taken: float | None, expected: Look) -> None:
    seen = None if taken is None else diagnosis(taken=NOW - taken)
    assert asked(job(1), since=NOW - age, status=started(age), diagnosis=seen) == expected


@pytest.mark.parametrize(("age", "since"), [(5, 500), (500, 5)])
def test_neither_an_older_attempt_nor_an_older_wait_counts(age: float, since: float) -> None:
    assert asked(job(1), since=NOW - since, status=started(age)) == Look(False, NOW + 15)


def test_samplers_are_not_waited_for_while_the_learner_is() -> None:
    status = {"attempt": 1, "conditions": [condition("LearnerReady", "False", "Starting", since=NOW - 500)]}
    assert asked(job(1, ready=1), deployment(2), wait="sampling", desired=2, status=status) == Look(False)
    assert asked(job(1, ready=1), deployment(2), wait="sampling", desired=2, status={"attempt": 1}) == Look(False)


@pytest.mark.parametrize(
    ("children", "wait"),
    [
        ([job(1, ready=1)], "sampling"),
        ([job(1, suspend=True)], "nothing"),
        ([], "pods"),
        ([{**job(1), "status": {"conditions": [{"type": "FailureTarget", "status": "True"}]}}], "pods"),
    ],
)
def test_pods_that_nobody_waits_for(children: list[Any], wait: str) -> None:
    assert asked(*children, wait=wait, since=NOW - 500, status=started(500)) == Look(False)


@pytest.mark.parametrize(
    ("ready", "desired", "since", "expected"),
    [
        (0, 2, 500, Look(True)),
        (0, 2, 5, Look(False, NOW + 15)),
        (1, 2, 500, Look(False)),
        (0, 0, 500, Look(False)),
    ],
)
def test_samplers_that_do_not_come(ready: int, desired: int, since: float, expected: Look) -> None:
    status = {"attempt": 1, "conditions": [condition("LearnerReady", "True", "Running", since=NOW - since)]}
    children = (job(1, ready=1), deployment(2, ready=ready))
    assert asked(*children, wait="sampling", desired=desired, status=status) == expected
    waited = {"attempt": 1, "judgedAttempt": 1}
    turns = asked(
        job(1, rule=4),
        deployment(2, ready=ready),
        wait="sampling",
        since=NOW - since,
        turn="samplers",
        desired=desired,
        status=waited,
    )
    assert turns == expected


@pytest.mark.parametrize(
    ("state", "taken", "now"),
    [
        ({"failed": "x"}, None, True),
        ({"failed": "x"}, 6, True),
        ({"failed": "x"}, 5, True),
        ({"failed": "x"}, 0, False),
        ({"rule": 0}, None, True),
        ({"rule": 1}, None, True),
        ({"rule": 2}, None, False),
        ({"rule": 3}, None, True),
        ({"complete": True}, None, False),
    ],
)
def test_ends_that_are_explained(state: dict[str, Any], taken: float | None, now: bool) -> None:
    seen = None if taken is None else diagnosis(taken=NOW - taken)
    assert asked(job(1, **state), status={"attempt": 1}, diagnosis=seen) == Look(now)


def crashed(message: str, attempt: int = 1) -> Any:
    ended = pod(f"demo-learner-{attempt}-0", "learner", phase="Failed")
    ended["metadata"]["labels"]["empg.dev/attempt"] = str(attempt)
    state = {"terminated": {"exitCode": 1, "reason": "Error", "message": message}}
    ended["status"]["containerStatuses"] = [{"name": "learner", "state": state}]
    return ended


@pytest.mark.parametrize(("attempt", "now"), [(1, True), (2, False)])
def test_a_look_at_the_attempt_before_explains_nothing(attempt: int, now: bool) -> None:
    seen = diagnosis(crashed("x", attempt), taken=NOW - 2)
    status = {"attempt": 2, "judgedAttempt": 1}
    assert asked(job(2, failed="x"), status=status, diagnosis=seen) == Look(now)


def test_the_last_words_are_those_of_the_attempt_that_failed() -> None:
    look = diagnosis(crashed("CUDA out of memory", 1), crashed("no route to host", 2))
    seen = situation(job(1, failed="x"), status={"attempt": 1}, diagnosis=look)
    words = last_words(seen, tally(seen, over=False))
    assert words is not None
    assert "CUDA out of memory" in words.message
    quiet = situation(job(1, ready=1), status={"attempt": 1}, diagnosis=look)
    assert last_words(quiet, tally(quiet, over=False)) is None


def test_a_crash_is_told_with_its_cause() -> None:
    steps = Steps()
    steps.settle()
    steps.pods = [crashed("CUDA out of memory")]
    steps.replace_job(1, failed="Job has reached the specified backoff limit")
    steps.settle()
    told = next(event for done in steps.done for event in done.events if event.reason == "LearnerFailed")
    assert told.type == "Warning"
    assert "CUDA out of memory" in told.message
    learner = next(each for each in steps.status()["conditions"] if each["type"] == "LearnerReady")
    assert "CUDA out of memory" in learner["message"]
    assert learner["message"].endswith("The next attempt starts at 2027-01-15T08:00:10Z.")


def test_a_pod_that_its_node_refused_is_told_of_as_such() -> None:
    steps = Steps()
    steps.settle()
    steps.pods = [refused_pod()]
    steps.replace_job(1, failed="Job has reached the specified backoff limit")
    written = steps.step()
    assert steps.jobs() == ["demo-learner-1"], "what the look showed is written down first"
    assert written.requeue_after == 0
    assert steps.said("LearnerReady") == ("False", "RefusedByNode")
    [message] = [each["message"] for each in steps.status()["conditions"] if each["type"] == "LearnerReady"]
    told = (
        "Attempt 1: The node gave pod demo-learner-1-0 up (UnexpectedAdmissionError): Pod was rejected: "
        "Allocate failed; if this goes on, see `kubectl describe node node-7`."
    )
    assert message == told.removesuffix(".")
    [event] = [event for event in written.events if event.reason == "LearnerStopped"]
    assert event.message == f"{told} It costs no restart."
    steps.pods, steps.diagnosis = [], None
    steps.settle()
    assert steps.jobs() == ["demo-learner-1", "demo-learner-2"]
    status = steps.status()
    assert (status["restarts"], status["fruitlessRestarts"], status["unchargedEnds"]) == (0, 0, 1)
    assert "LearnerFailed" not in steps.events()


@pytest.mark.parametrize("pods", [[], [pod("demo-learner-1-0", "learner", phase="Failed")]])
def test_an_end_that_no_look_explains_is_a_crash(pods: list[Any]) -> None:
    steps = Steps()
    steps.settle()
    steps.pods = pods
    steps.replace_job(1, failed="Job has reached the specified backoff limit")
    steps.settle()
    assert steps.said("LearnerReady") == ("False", "Crashed")
    assert (steps.status()["restarts"], steps.status()["unchargedEnds"]) == (1, 0)


@pytest.mark.parametrize("words", ["RuntimeError: " + "no memory " * 200, "x" * 600])
def test_long_last_words_leave_room_for_what_follows(words: str) -> None:
    steps = Steps()
    steps.settle()
    steps.pods = [crashed(words)]
    steps.replace_job(1, failed="Job has reached the specified backoff limit")
    steps.settle()
    told = {each["type"]: each["message"] for each in steps.status()["conditions"]}
    assert 400 < len(told["LearnerReady"]) <= MESSAGE_CHARACTERS
    assert told["LearnerReady"].startswith(
        "Attempt 1: Container learner of pod demo-learner-1-0 ended with exit code 1"
    )
    assert words.strip()[-50:] in told["LearnerReady"], "the end of a traceback is what explains it"
    follows = " shows more, while the pod exists. The next attempt starts at 2027-01-15T08:00:10Z."
    assert told["LearnerReady"].endswith(follows)
    assert told["LearnerReady"].startswith(told["Ready"].removesuffix("…"))
    assert len(told["Ready"]) <= 250
    [event] = [event for done in steps.done for event in done.events if event.reason == "LearnerFailed"]
    assert event.message.endswith(" shows more, while the pod exists.")


def test_a_long_message_of_a_job_leaves_room_for_what_follows() -> None:
    steps = Steps()
    steps.settle()
    steps.replace_job(1, failed="x" * 600)
    steps.settle()
    learner = next(each for each in steps.status()["conditions"] if each["type"] == "LearnerReady")
    assert len(learner["message"]) == MESSAGE_CHARACTERS
    assert learner["message"].endswith("x…. The next attempt starts at 2027-01-15T08:00:10Z.")


def test_long_last_words_leave_room_for_the_limit_that_is_exceeded() -> None:
    steps = Steps({"restarts": {"limit": 0}})
    steps.settle()
    steps.pods = [crashed("no memory " * 200)]
    steps.replace_job(1, failed="Job has reached the specified backoff limit")
    steps.settle()
    failed = next(each for each in steps.status()["conditions"] if each["type"] == "Failed")
    assert failed["reason"] == "RestartLimitExceeded"
    assert failed["message"].startswith("The learner crashed 1 times; restarts.limit is 0. The last time: ")
    assert failed["message"].endswith("`kubectl logs demo-learner-1-0 -c learner` shows more, while the pod exists.")


def test_a_cause_comes_with_a_look_and_goes_when_pods_come() -> None:
    steps = Steps()
    steps.settle()
    waiting = pod("demo-learner-1-0", "learner", phase="Pending")
    waiting["metadata"]["labels"]["empg.dev/attempt"] = "1"
    refused = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes are available",
    }
    waiting["status"]["conditions"] = [refused]
    steps.pods = [waiting]
    steps.now = NOW + 20
    steps.settle()
    assert steps.said("LearnerReady") == steps.said("Ready") == ("False", "Unschedulable")
    assert steps.settle().requeue_after == 60
    seen = len(steps.done)
    steps.now = NOW + 80
    steps.settle()
    assert len(steps.done) == seen + 1, "the same cause is not written again"
    steps.replace_job(1, ready=1)
    steps.settle()
    assert steps.said("LearnerReady") == ("True", "Running")
    assert "Unschedulable" not in str(steps.status()["conditions"])
