"""How samplers come by a new policy: in place, by new pods, or in turn with the learner."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pytest
from pod_status import Pod
from run_view import RunView
from stage import SECONDS, Stage
from waiting import eventually

from empg_operator.plan.roll import PAUSE_SECONDS

POLICY = "empg.dev/policy"


@pytest.fixture(scope="module")
def runs(stage: Stage) -> Mapping[str, RunView]:
    changes: dict[str, dict[str, Any]] = {
        "laggards": {"sampler.replicas": 3, "sampler.rollDeadlineSeconds": 2},
        "replaced": {"sampler.replicas": 2, "sampler.rollStrategy": "RollingUpdate", "sampler.maxUnavailable": 1},
        "turns": {"sampler.replicas": 2, "sampler.rollStrategy": "Alternate"},
        "gone": {"sampler.rollStrategy": "Alternate"},
    }
    return {name: stage.create(name, change) for name, change in changes.items()}


@pytest.fixture(scope="module")
def laggards(stage: Stage, runs: Mapping[str, RunView]) -> list[str]:
    """Two of three samplers stay behind; their names."""
    stage.learners(runs["laggards"])
    late = [pod["metadata"]["name"] for pod in stage.samplers(runs["laggards"], 3)[:2]]
    behind(runs["laggards"], late)
    return late


def behind(view: RunView, late: list[str]) -> None:
    versions = [{"policy": 1, "samplers": 3 - len(late)}, {"policy": 0, "samplers": len(late)}]
    view.report(
        iteration=1, policyVersion=1, samplerVersions=[one for one in versions if one["samplers"]], laggards=late
    )


def deployment(view: RunView) -> Mapping[str, Any]:
    found = view.child("Deployment", f"{view.name}-sampler")
    assert found
    return found


def annotated(pods: list[Pod]) -> list[str]:
    return [pod["metadata"].get("annotations", {}).get(POLICY, "") for pod in pods]


def attempt_of(pod: Pod) -> str:
    [container] = pod["spec"]["containers"]
    return str(next(entry["value"] for entry in container["env"] if entry["name"] == "EMPG_ATTEMPT"))


def test_new_policies_roll_the_deployment(stage: Stage, runs: Mapping[str, RunView], laggards: list[str]) -> None:
    view = runs["replaced"]
    [learner] = stage.learners(view)
    stage.samplers(view, 2)
    for policy in (0, 1, 2):
        view.report(iteration=policy, policyVersion=policy)
        eventually(
            lambda policy=policy: annotated(stage.samplers(view, 2)) == [str(policy)] * 2,  # type: ignore[misc]
            f"pods with policy {policy}",
            SECONDS,
        )
    arguments = deployment(view)["spec"]["template"]["spec"]["containers"][0]["args"]
    assert arguments[arguments.index("--policy") + 1] == "2"
    eventually(lambda: "rollStarted" not in view.status(), "end of the roll", SECONDS)
    assert view.status()["rolledPolicy"] == 2
    stage.node.finish(learner, exit_code=75)
    view.until_attempt(2)
    stage.learners(view)
    assert annotated(stage.samplers(view, 2)) == ["2", "2"], "a restart of the learner takes no policy back"


def test_learner_and_samplers_take_turns(stage: Stage, runs: Mapping[str, RunView]) -> None:
    view = runs["turns"]
    for attempt in (1, 2):
        view.until_attempt(attempt)
        [learner] = stage.learners(view)
        assert deployment(view)["spec"]["replicas"] == 0
        view.report(attempt=attempt, iteration=attempt - 1, policyVersion=attempt - 1)
        stage.node.finish(learner, exit_code=76)
        samplers = stage.samplers(view, 2)
        assert {attempt_of(pod) for pod in samplers} == {str(attempt)}
        status = view.until_phase("Sampling", SECONDS)
        assert status["turn"] == "samplers"
        view.until_condition("Ready", "True", SECONDS)
        assert not [pod for pod in stage.pods(view.learner_pods) if pod["status"]["phase"] == "Running"]
        view.report_sampled(attempt)
    view.until_attempt(3)
    [learner] = stage.learners(view)
    view.report(attempt=3, iteration=3, phase="done", policyVersion=3)
    stage.node.finish(learner)
    status = view.until_phase("Complete", SECONDS)
    assert (status["attempt"], status["restarts"]) == (3, 0)
    assert len(view.told("AttemptStarted")) == 1, "turns are nothing to be told"
    assert not view.told("LearnerFailed")
    stage.until_no_pods(view)
    stage.until_no_orphans()


def test_a_learner_that_crashes_in_its_turn_starts_again(stage: Stage, runs: Mapping[str, RunView]) -> None:
    view = runs["gone"]
    view.change({"restarts": {"backoffSeconds": 0}})
    [learner] = stage.learners(view)
    stage.node.finish(learner, exit_code=1)
    view.until_attempt(2)
    [learner] = stage.learners(view)
    stage.node.finish(learner, exit_code=76)
    [sampler] = stage.samplers(view)
    assert attempt_of(sampler) == "2"
    view.report_sampled(1)  # of the attempt before
    time.sleep(2)
    assert deployment(view)["spec"]["replicas"] == 1
    view.report_sampled(2)
    view.until_attempt(3)
    assert view.status()["restarts"] == 1


def test_samplers_that_stay_behind_are_deleted_one_by_one(
    stage: Stage, runs: Mapping[str, RunView], laggards: list[str]
) -> None:
    view = runs["laggards"]
    eventually(lambda: len(view.told("LaggardDeleted")) == 2, "deletion of both", PAUSE_SECONDS + SECONDS)
    told = sorted(view.told("LaggardDeleted"))
    assert [name in message for name, message in zip(sorted(laggards), told, strict=True)] == [True, True]
    selector = f"involvedObject.name={view.name},reason=LaggardDeleted"
    events = stage.rest.get(f"/api/v1/namespaces/{stage.namespace}/events", fieldSelector=selector)["items"]
    first, second = sorted(datetime.fromisoformat(event["firstTimestamp"]) for event in events)
    assert (second - first).total_seconds() >= PAUSE_SECONDS - 1, "the first one's successor has time to come"
    kept = {pod["metadata"]["name"] for pod in stage.samplers(view, 3)}
    assert not kept & set(laggards)
    behind(view, [])
    eventually(lambda: "rollStarted" not in view.status(), "end of the roll", SECONDS)
    status = view.status()
    assert (status["phase"], status["restarts"], status["attempt"]) == ("Sampling", 0, 1)
