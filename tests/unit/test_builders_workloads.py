"""The Deployment of the samplers, the Jobs of the learner."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from built_runs import SETTINGS, built_run

from empg import exit_codes
from empg.api.run import EMPGRun
from empg_operator import names
from empg_operator.builders.learner import FAILURE_RULES, learner_job, learner_pod_template
from empg_operator.builders.sampler import sampler_deployment, sampler_pod_template

Json = dict[str, Any]


def deployment(run: EMPGRun, policy: int | None = None, attempt: int | None = None, replicas: int = 3) -> Json:
    template = sampler_pod_template(run, SETTINGS, None)
    return sampler_deployment(run, template, replicas, "demo-sampler-11111111", policy, attempt)


def job(run: EMPGRun, attempt: int = 1) -> Json:
    return learner_job(run, learner_pod_template(run, SETTINGS, None), attempt, "demo-learner-22222222")


@pytest.mark.parametrize(
    ("sampler", "strategy"),
    [
        ({}, {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "25%"}}),
        # What is given for RollingUpdate says nothing of InPlace, where a GPU more than replicas is never asked for.
        (
            {"maxSurge": 2, "maxUnavailable": 1},
            {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "25%"}},
        ),
        (
            {"rollStrategy": "RollingUpdate", "maxSurge": "10%", "maxUnavailable": 1},
            {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "10%", "maxUnavailable": 1}},
        ),
        ({"rollStrategy": "Alternate"}, {"type": "Recreate"}),
    ],
)
def test_samplers_are_replaced_as_the_run_says(sampler: Json, strategy: Json) -> None:
    assert deployment(built_run(sampler=sampler))["spec"]["strategy"] == strategy


def test_a_deployment_selects_its_pods() -> None:
    built = deployment(built_run(), replicas=0)
    selected = built["spec"]["selector"]["matchLabels"]
    assert selected == names.selector("demo", "sampler")
    assert selected.items() <= built["spec"]["template"]["metadata"]["labels"].items()
    assert built["spec"]["replicas"] == 0
    assert built["metadata"]["name"] == "demo-sampler"


def test_pods_are_replaced_for_another_template_or_policy_and_for_nothing_else() -> None:
    run = built_run(sampler={"rollStrategy": "RollingUpdate"})
    template = sampler_pod_template(run, SETTINGS, None)
    pods = [
        sampler_deployment(run, template, replicas, revision, policy, None)["spec"]["template"]
        for replicas, revision, policy in ((1, "a", 1), (5, "a", 1), (1, "b", 1), (1, "a", 2))
    ]
    assert [other == pods[0] for other in pods] == [True, True, False, False]


def test_a_frozen_template_stays_as_it_is() -> None:
    run = built_run()
    sampler, learner = sampler_pod_template(run, SETTINGS, None), learner_pod_template(run, SETTINGS, None)
    before = copy.deepcopy((sampler, learner))
    sampler_deployment(run, sampler, 1, "r", 7, 3)
    learner_job(run, learner, 4, "r")
    assert (sampler, learner) == before


def test_kueue_finds_learner_and_samplers_and_nobody_else_suspends_them() -> None:
    run = built_run(queueName="team", priorityClassName="high")
    for built in (deployment(run), job(run)):
        assert built["metadata"]["labels"][names.QUEUE_LABEL] == "team"
        assert "suspend" not in built["spec"]
        assert built["spec"]["template"]["spec"]["priorityClassName"] == "high"
    assert names.QUEUE_LABEL not in job(built_run())["metadata"]["labels"]


def test_a_gang_is_one_attempt() -> None:
    built = job(built_run(learner={"nodes": 4}), attempt=12)
    spec = {key: value for key, value in built["spec"].items() if key not in ("template", "podFailurePolicy")}
    assert spec == {
        "completionMode": "Indexed",
        "completions": 4,
        "parallelism": 4,
        "backoffLimit": 0,
        "podReplacementPolicy": "Failed",
        "successPolicy": {"rules": [{"succeededIndexes": "0"}]},
    }
    assert built["metadata"]["name"] == "demo-learner-12"
    for labels in (built["metadata"]["labels"], built["spec"]["template"]["metadata"]["labels"]):
        assert labels.items() >= {names.ATTEMPT_LABEL: "12", names.REVISION_LABEL: "demo-learner-22222222"}.items()


def test_the_failed_job_says_by_a_rule_how_its_learner_ended() -> None:
    rules = job(built_run())["spec"]["podFailurePolicy"]["rules"]
    assert {rule["action"] for rule in rules} == {"FailJob"}
    found = [rule.get("onExitCodes", {}).get("values", [None])[0] for rule in rules]
    assert tuple(found) == FAILURE_RULES
    assert found == [exit_codes.SPEC, exit_codes.DIVERGED, None, exit_codes.RETRY, exit_codes.WAITING]
    assert rules[2]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert {rule["onExitCodes"]["containerName"] for rule in rules if "onExitCodes" in rule} == {"learner"}
    assert {rule["onExitCodes"]["operator"] for rule in rules if "onExitCodes" in rule} == {"In"}


def test_names_of_the_longest_run_fit() -> None:
    run = built_run().model_copy(update={"metadata": built_run().metadata.model_copy(update={"name": "r" * 46})})
    built = learner_job(
        run, learner_pod_template(run, SETTINGS, None), 999, names.revision("r" * 46, "learner", "d" * 64)
    )
    host = f"{built['metadata']['name']}-1023"
    labels = built["spec"]["template"]["metadata"]["labels"]
    assert max(map(len, (host, *labels.values()))) == 63
