"""How attempts of the learner end, what each end costs, and what stays after the last one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest
from pod_status import Pod
from run_view import RunView
from stage import SECONDS, Stage
from waiting import eventually

BACKOFF_SECONDS = 4.0


@dataclass(frozen=True)
class Started:
    """A run whose learner runs."""

    view: RunView
    learner: Pod


@pytest.fixture(scope="module")
def runs(stage: Stage) -> Mapping[str, Started]:
    """One run for each way to end; they start side by side."""
    changes: dict[str, dict[str, Any]] = {
        "crashes": {"restarts.backoffSeconds": BACKOFF_SECONDS},
        "evicted": {},
        "pressed": {},
        "asked": {},
        "refused": {"restarts.limit": 0},
        "wrong": {"sampler.replicas": 2},
        "diverged": {"em.seed": 1},
        "limited": {"restarts.limit": 1, "restarts.backoffSeconds": 0},
        "gang": {"learner.nodes": 2},
        "brief": {"ttlSecondsAfterFinished": 3},
        "bare": {},
    }
    views = {name: stage.create(name, change) for name, change in changes.items()}
    return {name: Started(view, stage.learners(view, 2 if name == "gang" else 1)[0]) for name, view in views.items()}


def seconds(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


def until_failed(stage: Stage, view: RunView, reason: str) -> Mapping[str, str]:
    """Wait until a run has failed and holds nothing; its condition."""
    view.until_phase("Failed", SECONDS)
    stage.until_no_pods(view)
    failed = view.until_condition("Failed", "True")
    assert failed["reason"] == reason
    assert view.condition("Ready")["reason"] == "Failed"
    deployment = view.child("Deployment", f"{view.name}-sampler")
    assert deployment is None or deployment["spec"]["replicas"] == 0
    assert "completionTime" in view.status()
    assert any(reason in message for message in view.until_told("Failed")), "the user is told"
    return failed


def test_a_crash_costs_a_restart_and_a_pause(stage: Stage, runs: Mapping[str, Started]) -> None:
    view, samplers = runs["crashes"].view, stage.samplers(runs["crashes"].view)
    stage.node.finish(runs["crashes"].learner, exit_code=1, message="RuntimeError: no route to host")
    view.until_reason("LearnerReady", "Crashed", SECONDS)
    status, pause = view.status(), view.condition("LearnerReady")["message"]
    assert status["restarts"] == status["fruitlessRestarts"] == status["attempt"] == 1
    assert "no route to host" in pause
    assert f"The next attempt starts at {status['nextAttemptTime']}" in pause
    job = view.until_attempt(2)
    assert seconds(job["metadata"]["creationTimestamp"]) >= seconds(status["nextAttemptTime"])
    assert view.child("Job", "crashes-learner-1"), "the newest end can be looked at"
    assert "no route to host" in view.until_told("LearnerFailed")[0]
    assert stage.samplers(view)[0]["metadata"]["uid"] == samplers[0]["metadata"]["uid"], "samplers stay"
    [second] = stage.learners(view)
    stage.node.finish(second, exit_code=1)
    eventually(lambda: view.status()["restarts"] == 2, "second crash", SECONDS)
    again = view.status()
    wait = seconds(again["nextAttemptTime"]) - seconds(second["status"]["startTime"])
    assert wait > 2 * BACKOFF_SECONDS - 1, "the backoff doubles"
    view.until_attempt(3)
    eventually(lambda: not view.child("Job", "crashes-learner-1"), "end of the oldest Job", SECONDS)
    stage.until_no_orphans()


@pytest.mark.parametrize(
    ("name", "event"), [("evicted", "Evicted"), ("pressed", "Evicted"), ("asked", "LearnerStopped")]
)
def test_an_end_that_is_nobodys_fault_costs_nothing(
    stage: Stage, runs: Mapping[str, Started], name: str, event: str
) -> None:
    view, learner = runs[name].view, runs[name].learner
    end = {
        "evicted": stage.node.evict,
        "pressed": stage.node.evict_for_memory,
        "asked": lambda pod: stage.node.finish(pod, exit_code=75),
    }
    end[name](learner)
    view.until_attempt(2)
    stage.learners(view)
    eventually(lambda: view.status()["attempt"] == 2, "second attempt in the status", SECONDS)
    status = view.status()
    assert (status["restarts"], status["fruitlessRestarts"], status["unchargedEnds"]) == (0, 0, 1)
    assert "It costs no restart" in view.until_told(event)[0]
    assert not view.told("LearnerFailed")


def test_a_pod_that_its_node_refuses_costs_nothing(stage: Stage, runs: Mapping[str, Started]) -> None:
    view, message = runs["refused"].view, "Allocate failed due to no healthy devices present"
    stage.node.refuse(runs["refused"].learner, "UnexpectedAdmissionError", message)
    view.until_attempt(2)
    stage.learners(view)
    job = view.child("Job", "refused-learner-1")
    assert job
    [failed] = [each for each in job["status"]["conditions"] if each["type"] == "Failed"]
    assert failed["reason"] == "BackoffLimitExceeded", "no rule of the Job names such an end"
    eventually(lambda: view.status()["attempt"] == 2, "second attempt in the status", SECONDS)
    status = view.status()
    assert (status["restarts"], status["fruitlessRestarts"], status["unchargedEnds"]) == (0, 0, 1)
    [told] = view.until_told("LearnerStopped")
    assert f"(UnexpectedAdmissionError): Pod was rejected: {message}; " in told
    assert "It costs no restart" in told
    assert not view.told("LearnerFailed")


def test_a_wrong_spec_ends_a_run_with_the_learners_words(stage: Stage, runs: Mapping[str, Started]) -> None:
    view = runs["wrong"].view
    stage.samplers(view, 2)
    stage.node.finish(runs["wrong"].learner, exit_code=64, message="em.batch: 7 is no multiple of 2; make it 8")
    failed = until_failed(stage, view, "InvalidSpec")
    assert "em.batch: 7 is no multiple of 2; make it 8" in failed["message"]
    assert view.child("Job", "wrong-learner-1"), "kept for its pods' logs"
    assert [pod["metadata"]["name"] for pod in stage.pods(view.learner_pods)], "and the pod too"
    assert not view.child("Job", "wrong-learner-2")


def test_training_that_diverged_is_not_tried_again(stage: Stage, runs: Mapping[str, Started]) -> None:
    view = runs["diverged"].view
    stage.node.finish(runs["diverged"].learner, exit_code=65, message="guards.maxKL: 3.2 nats > 1")
    assert "guards.maxKL: 3.2 nats > 1" in until_failed(stage, view, "Diverged")["message"]
    assert (view.status()["attempt"], view.status()["restarts"]) == (1, 0)


def test_crashes_above_the_limit_end_a_run(stage: Stage, runs: Mapping[str, Started]) -> None:
    view = runs["limited"].view
    stage.node.finish(runs["limited"].learner, exit_code=1)
    view.until_attempt(2)
    stage.node.finish(stage.learners(view)[0], exit_code=134, message="terminate called")
    failed = until_failed(stage, view, "RestartLimitExceeded")
    assert "crashed 2 times; restarts.limit is 1" in failed["message"]
    assert "terminate called" in failed["message"]
    time.sleep(2)
    assert not view.child("Job", "limited-learner-3")


def test_a_gang_starts_again_as_a_gang(stage: Stage, runs: Mapping[str, Started]) -> None:
    view = runs["gang"].view
    stage.node.finish(runs["gang"].learner, exit_code=75)
    job = view.until_attempt(2)
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == 2
    pods = stage.learners(view, 2)
    assert {pod["metadata"]["labels"]["empg.dev/attempt"] for pod in pods} == {"2"}
    view.report(attempt=2, iteration=3, phase="done")
    leader = next(p for p in pods if p["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"] == "0")
    stage.node.finish(leader)
    view.until_phase("Complete", SECONDS)
    stage.until_no_pods(view)


def test_children_go_some_time_after_the_end_and_stay_away(stage: Stage, runs: Mapping[str, Started]) -> None:
    view = runs["brief"].view
    view.report(iteration=3, phase="done", policyVersion=3)
    stage.node.finish(runs["brief"].learner)
    view.until_phase("Complete", SECONDS)
    eventually(
        lambda: {kind for kind, _ in view.children()} == {"PersistentVolumeClaim"}, "end of the children", SECONDS
    )
    stage.until_no_pods(view)
    stage.until_no_orphans()
    before = view.document()
    stage.cluster.kubectl("annotate", "empgrun", "brief", "-n", stage.namespace, "example.com/read=yes")
    time.sleep(7)  # longer than a resync
    assert {kind for kind, _ in view.children()} == {"PersistentVolumeClaim"}
    assert view.document()["status"] == before["status"]
    assert view.child("PersistentVolumeClaim", "brief-data")["status"]["phase"] == "Bound"  # type: ignore[index]


@pytest.mark.parametrize("lost", ["app.kubernetes.io/managed-by", None], ids=["one label", "all labels"])
def test_a_job_that_loses_labels_is_kept(stage: Stage, runs: Mapping[str, Started], lost: str | None) -> None:
    """Mutators and users rewrite labels; a rival would wait for the devices that the first attempt holds."""
    view, learner = runs["bare"].view, runs["bare"].learner
    stage.samplers(view)
    before = view.child("Job", "bare-learner-1")
    assert before
    labels = before["metadata"]["labels"]
    wanted = {name: value for name, value in labels.items() if name != "empg.dev/revision"}
    view.patch_child("Job", "bare-learner-1", {"metadata": {"labels": {lost: None} if lost else None}})

    def restored() -> bool:
        found = view.child("Job", "bare-learner-1")
        assert found
        return bool(wanted.items() <= (found["metadata"].get("labels") or {}).items())

    eventually(restored, "labels of the Job", SECONDS)
    stage.cluster.kubectl(
        "annotate", "--overwrite", "empgrun", "bare", "-n", stage.namespace, f"example.com/lost={lost}"
    )
    time.sleep(2)
    after = view.child("Job", "bare-learner-1")
    assert after
    assert (after["metadata"]["uid"], after["spec"]) == (before["metadata"]["uid"], before["spec"])
    assert not view.child("Job", "bare-learner-2")
    assert [pod["metadata"]["uid"] for pod in stage.learners(view)] == [learner["metadata"]["uid"]]
    status = view.status()
    assert (status["attempt"], status["unchargedEnds"], view.told("LearnerStopped")) == (1, 0, [])


def test_the_end_of_a_job_that_had_lost_its_labels_is_seen(stage: Stage, runs: Mapping[str, Started]) -> None:
    view = runs["bare"].view
    view.report(iteration=3, phase="done")
    stage.node.finish(runs["bare"].learner)
    view.until_phase("Complete", SECONDS)
