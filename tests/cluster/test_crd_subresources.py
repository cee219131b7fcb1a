"""What kubectl, autoscalers and field managers see of a run on a real API server."""

from __future__ import annotations

import json

import pytest
import yaml
from run_documents import Runs, run
from waiting import eventually

from empg.api.status import Clock, Condition, Iteration, PolicyCount, Progress, RunStatus, SamplerCount
from empg_operator.api import UNDECLARED
from hack.controlplane.access import Access, CommandError
from hack.rest import ApiError, Document, Rest

NOW = "2026-01-02T03:04:05Z"
AUTOSCALER_SECONDS = 90.0
"""Its controller looks every 15 s, and learns of new kinds every 30 s."""


@pytest.fixture
def runs(empgruns: Access, namespace: str) -> Runs:
    return Runs(Rest(empgruns.kubeconfig, "test-crd-subresources"), namespace)


def condition(kind: str, status: str = "True") -> Condition:
    return Condition(
        type=kind,
        status=status,
        reason="Started",
        message="All pods run.",
        last_transition_time=NOW,
        observed_generation=1,
    )


def data(status: RunStatus, *keys: str) -> Document:
    """Some keys of a status as a program writes them."""
    whole = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {key: whole[key] for key in keys}


OPERATORS = data(
    RunStatus(
        observed_generation=1,
        phase="Learning",
        conditions=(condition("Ready"), condition("SamplersReady")),
        attempt=1,
        start_time=NOW,
        clock=Clock(waiting_for="learning", iteration=7, since=NOW),
        samplers=SamplerCount(desired=4, replicas=4, ready=3, summary="3/4"),
        selector="empg.dev/run=seen,empg.dev/role=sampler",
    ),
    *("observedGeneration", "phase", "conditions", "attempt", "startTime", "clock", "samplers", "selector"),
)
LEARNERS = data(
    RunStatus(
        progress=Progress(
            attempt=1,
            iteration=7,
            iterations=20,
            phase="learning",
            policy_version=6,
            reward=0.5,
            evaluation=0.25,
            sampler_versions=(PolicyCount(policy=6, samplers=3),),
            laggards=("seen-sampler-x",),
            updated=NOW,
        ),
        recent=(Iteration(iteration=6, reward=0.5),),
    ),
    *("progress", "recent"),
)


def test_operator_and_learner_each_own_their_part_of_the_status(runs: Runs) -> None:
    document = runs.create(run("seen"))
    runs.apply_status(document, OPERATORS, "empg-operator")
    runs.apply_status(document, LEARNERS, "empg-learner")
    stored = runs.apply_status(document, OPERATORS | {"conditions": OPERATORS["conditions"][:1]}, "empg-operator")
    assert stored["status"] == OPERATORS | LEARNERS | {"conditions": OPERATORS["conditions"][:1]}
    assert RunStatus.model_validate(stored["status"], by_alias=True, by_name=False).progress is not None


def test_nulls_can_be_applied_where_the_models_take_them(empgruns: Access, runs: Runs, namespace: str) -> None:
    document = run("seen", {"model.revision": None, "queueName": None, "deadlines.holdSeconds": None})
    empgruns.kubectl("apply", "--server-side", "-n", namespace, "-f", "-", input=yaml.safe_dump(document))
    stored = runs.apply_status(document, {"progress": LEARNERS["progress"] | {"kl": None}}, "empg-learner")
    assert stored["spec"]["deadlines"]["holdSeconds"] is None
    assert RunStatus.model_validate(stored["status"], by_alias=True, by_name=False).progress is not None


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ({"conditions": [OPERATORS["conditions"][0]] * 2}, "conditions"),
        ({"phase": "Dreaming"}, "Unsupported value"),
        ({"startTime": "yesterday"}, "status.startTime"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_status_that_is_none_is_refused(runs: Runs, status: Document, message: str) -> None:
    document = runs.create(run("seen"))
    with pytest.raises(ApiError, match=message):
        runs.apply_status(document, status, "empg-operator")


def test_a_field_that_the_definition_lacks_is_refused_as_the_operator_knows_it(runs: Runs) -> None:
    """What an operator meets whose definition is older than itself."""
    document = runs.create(run("seen"))
    with pytest.raises(ApiError, match=rf"{UNDECLARED}.*\.status\.later: field not declared in schema"):
        runs.apply_status(document, {"later": 1}, "empg-operator")


def test_kubectl_prints_how_far_a_run_is(empgruns: Access, runs: Runs, namespace: str) -> None:
    document = runs.create(run("seen"))
    runs.apply_status(document, OPERATORS | LEARNERS, "empg-operator")
    header, line = empgruns.kubectl("get", "empg", "-n", namespace).splitlines()
    assert header.split() == ["NAME", "PHASE", "ITERATION", "REWARD", "EVAL", "SAMPLERS", "POLICY", "AGE"]
    assert line.split()[:-1] == ["seen", "Learning", "7", "0.5", "0.25", "3/4", "6"]
    assert "empgrun.empg.dev/seen" in empgruns.kubectl("get", "all", "-n", namespace)


def test_kubectl_explains_fields(empgruns: Access) -> None:
    section = eventually(lambda: _explained(empgruns, "empgrun.spec.em"), "explanation of empgrun.spec.em")
    assert "How many iterations, and what one iteration samples." in section
    assert "iterations\t<integer> -required-" in section
    assert "Immutable." in empgruns.kubectl("explain", "empgrun.spec.em.seed")


def _explained(empgruns: Access, field: str) -> str | None:
    try:
        return empgruns.kubectl("explain", field)
    except CommandError:  # the API server publishes the schema a moment after it serves the kind
        return None


def test_kubectl_scales_the_samplers(empgruns: Access, runs: Runs, namespace: str) -> None:
    document = runs.create(run("seen"))
    runs.apply_status(document, OPERATORS, "empg-operator")
    empgruns.kubectl("scale", "empgrun/seen", "--replicas=6", "-n", namespace)
    scale = runs.scale(document)
    assert scale["spec"] == {"replicas": 6}
    assert scale["status"] == {"replicas": 4, "selector": OPERATORS["selector"]}
    with pytest.raises(CommandError, match=r"spec\.sampler\.replicas"):
        empgruns.kubectl("scale", "empgrun/seen", "--replicas=10001", "-n", namespace)


def test_an_autoscaler_can_target_a_run(empgruns: Access, runs: Runs, namespace: str) -> None:
    document = runs.create(run("seen"))
    runs.apply_status(document, OPERATORS, "empg-operator")
    busy = {"type": "Utilization", "averageUtilization": 80}
    autoscaler = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "seen"},
        "spec": {
            "scaleTargetRef": {"apiVersion": document["apiVersion"], "kind": document["kind"], "name": "seen"},
            "minReplicas": 3,
            "maxReplicas": 8,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": busy}}],
        },
    }
    empgruns.kubectl("create", "-n", namespace, "-f", "-", input=yaml.safe_dump(autoscaler))

    def conditions() -> dict[str, str]:
        found = json.loads(empgruns.kubectl("get", "hpa", "seen", "-n", namespace, "-o", "json"))
        return {entry["type"]: entry["status"] for entry in found["status"].get("conditions", [])}

    eventually(lambda: conditions().get("AbleToScale") == "True", "condition AbleToScale", AUTOSCALER_SECONDS)
    # Below its least number it acts without metrics: the run asks for 1, the autoscaler for at least 3.
    eventually(lambda: runs.scale(document)["spec"]["replicas"] == 3, "scaling to 3", AUTOSCALER_SECONDS)
