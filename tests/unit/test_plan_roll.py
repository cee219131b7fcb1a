"""How samplers come by a policy, and which of them are deleted."""

import copy
from typing import Any

import pytest
from plan_samples import NOW, Steps, deployment, diagnosis, job, pod, progress, situation

from empg_operator import names
from empg_operator.decision import Reference
from empg_operator.plan.roll import Roll, roll
from empg_operator.plan.situation import Situation
from empg_operator.plan.times import stamp

OLD = stamp(NOW - 700)
LIMIT = 600.0


def versions(**samplers: int) -> list[dict[str, int]]:
    """How many samplers hold a version: `v7=2`."""
    return [{"policy": int(name[1:]), "samplers": count} for name, count in samplers.items()]


def seen(policy: int | None, held: list[dict[str, int]], laggards: tuple[str, ...] = (), **more: Any) -> Situation:
    report = progress(samplerVersions=held, laggards=list(laggards)) | ({"policyVersion": policy} if policy else {})
    status = {"attempt": 1, "progress": report, **more.pop("status", {})}
    return situation(job(1, ready=1), deployment(2, ready=2), status=status, **more)


@pytest.mark.parametrize(
    ("status", "policy", "held", "expected"),
    [
        ({}, None, [], (None, None)),
        ({}, 3, versions(v3=2), (3, None)),
        ({}, 3, versions(v3=1, v2=1), (3, stamp(NOW))),
        ({"rolledPolicy": 3}, 4, versions(v3=2), (4, stamp(NOW))),
        ({"rolledPolicy": 4, "rollStarted": OLD}, 4, versions(v3=1, v4=1), (4, OLD)),
        ({"rolledPolicy": 4, "rollStarted": OLD}, 4, versions(v4=2), (4, None)),
        # Fast policies do not make a sampler that stands still look new.
        ({"rolledPolicy": 4, "rollStarted": OLD}, 6, versions(v6=1, v3=1), (4, OLD)),
        ({"rolledPolicy": 4, "rollStarted": OLD}, 6, versions(v6=1, v5=1), (6, stamp(NOW))),
        # A learner that starts again knows fewer.
        ({"rolledPolicy": 4}, 3, versions(v4=2), (4, None)),
        # Nobody holds anything yet.
        ({"rolledPolicy": 4}, 5, [], (5, None)),
    ],
)
def test_the_policy_that_all_are_asked_to_hold(
    status: dict[str, Any], policy: int | None, held: list[dict[str, int]], expected: tuple[int | None, str | None]
) -> None:
    found = roll(seen(policy, held, status=status), 2)
    assert (found.policy, found.started) == expected


@pytest.mark.parametrize(
    ("status", "policy", "updated", "expected"),
    [
        ({}, 3, 2, (3, stamp(NOW))),
        ({"rolledPolicy": 3}, 4, 2, (4, stamp(NOW))),
        ({"rolledPolicy": 4, "rollStarted": OLD}, 4, 1, (4, OLD)),
        ({"rolledPolicy": 4, "rollStarted": OLD}, 4, 2, (4, None)),
        ({"rolledPolicy": 4}, 3, 2, (4, None)),
    ],
)
def test_a_rolling_update_follows_the_newest(
    status: dict[str, Any], policy: int, updated: int, expected: tuple[int, str | None]
) -> None:
    children = (job(1, ready=1), deployment(2, ready=2, updatedReplicas=updated))
    spec = {"sampler": {"rollStrategy": "RollingUpdate"}}
    status = {"attempt": 1, "progress": progress(policyVersion=policy), **status}
    found = roll(situation(*children, spec=spec, status=status), 2)
    assert (found.policy, found.started, found.delete) == (*expected, None)


def test_no_samplers_no_roll() -> None:
    status = {"rolledPolicy": 4, "rollStarted": OLD, "laggardDeleted": OLD}
    assert roll(seen(5, versions(v3=1), status=status), 0) == Roll(4, None, None)
    alternate = {"sampler": {"rollStrategy": "Alternate"}}
    assert roll(seen(5, versions(v3=1), status=status, spec=alternate), 2) == Roll(None, None, None)


BEHIND = {"rolledPolicy": 4, "rollStarted": OLD}
A, B = "demo-sampler-a", "demo-sampler-b"


def test_a_laggard_is_looked_for_and_then_deleted() -> None:
    late = seen(4, versions(v4=1, v3=1), (A,), status=BEHIND)
    assert roll(late, 2) == Roll(4, OLD, None, look=True)
    found = roll(seen(4, versions(v3=1), (A,), status=BEHIND, diagnosis=diagnosis(pod(A, "sampler"))), 2)
    assert found == Roll(4, OLD, stamp(NOW), delete=Reference("Pod", A, f"uid-{A}"), again=NOW + 30)


@pytest.mark.parametrize(
    ("status", "again"),
    [
        ({"rollStarted": stamp(NOW - 599)}, NOW + 1),
        ({"laggardDeleted": stamp(NOW - 29)}, NOW + 1),
    ],
)
def test_nobody_is_deleted_before_its_time(status: dict[str, Any], again: float) -> None:
    look = diagnosis(pod(A, "sampler"))
    found = roll(seen(4, versions(v3=1), (A,), status=BEHIND | status, diagnosis=look), 2)
    assert (found.delete, found.look, found.again) == (None, False, again)


@pytest.mark.parametrize(
    ("pods", "laggards", "held", "deleted"),
    [
        ([pod(A, "sampler"), pod(B, "sampler")], (A, B), versions(v3=2), A),
        ([pod(B, "sampler")], (A, B), versions(v3=2), B),
        # Only as many as hold an older policy than all are asked for, the oldest first.
        ([pod(B, "sampler")], (A, B), versions(v3=1), None),
        # A report may name anything: the learner, a pod of another run, one that was just made or is going already.
        ([pod(A, "learner")], (A,), versions(v3=1), None),
        ([pod("etcd-0", "sampler")], (A,), versions(v3=1), None),
        ([pod(A, "sampler", age=LIMIT - 1)], (A,), versions(v3=1), None),
        ([pod(A, "sampler", age=LIMIT)], (A,), versions(v3=1), A),
        ([pod(A, "sampler", deletionTimestamp=stamp(NOW))], (A,), versions(v3=1), None),
        ([], (A,), versions(v3=1), None),
    ],
)
def test_which_pod_is_deleted(
    pods: list[Any], laggards: tuple[str, ...], held: list[dict[str, int]], deleted: str | None
) -> None:
    found = roll(seen(4, held, laggards, status=BEHIND, diagnosis=diagnosis(*pods)), 2)
    assert (found.delete.name if found.delete else None) == deleted
    assert found.again == NOW + 30


def test_what_a_learner_reported_that_does_not_run_is_not_believed() -> None:
    status = {"attempt": 1, "progress": progress(samplerVersions=versions(v3=1), laggards=[A], policyVersion=4)}
    look = diagnosis(pod(A, "sampler"))
    stopped = situation(job(1, failed="x"), deployment(2), status=status | BEHIND, diagnosis=look)
    assert roll(stopped, 2) == Roll(4, None, None)


@pytest.mark.parametrize(
    ("child", "attempt"),
    [
        (job(1, failed="x"), 1),
        ({**job(1, ready=1), "spec": {"parallelism": 1, "suspend": True}}, 1),
        (job(1, pods=2, ready=1), 1),
        (job(2), 2),
        # It runs and has not reported yet.
        (job(2, ready=1), 2),
    ],
)
def test_the_clock_of_a_roll_stands_while_no_learner_reports(child: Any, attempt: int) -> None:
    report = progress(policyVersion=4, samplerVersions=versions(v3=1), laggards=[A])
    status = {"attempt": attempt, "progress": report, **BEHIND, "laggardDeleted": OLD}
    assert roll(situation(child, deployment(2), status=status), 2) == Roll(4, None, None)


@pytest.mark.parametrize(("updated", "started"), [(2, None), (1, OLD)])
def test_a_deployment_rolls_without_a_learner(updated: int, started: str | None) -> None:
    status = {"attempt": 2, "progress": progress(policyVersion=5), **BEHIND}
    children = (job(2), deployment(2, updatedReplicas=updated))
    seen_alone = situation(*children, spec={"sampler": {"rollStrategy": "RollingUpdate"}}, status=status)
    assert roll(seen_alone, 2) == Roll(4, started, None)


def test_a_rolling_update_replaces_the_template_and_in_place_does_not() -> None:
    for strategy, argument in (("RollingUpdate", ["--policy", "4"]), ("InPlace", [])):
        steps = Steps({"sampler": {"rollStrategy": strategy}})
        steps.settle()
        steps.replace_job(1, ready=1)
        steps.settle()
        steps.roll_out()
        steps.report(progress=progress(policyVersion=4, samplerVersions=versions(v4=2)))
        steps.settle()
        child = steps.children["Deployment", names.sampler_deployment("demo")]
        arguments = child["spec"]["template"]["spec"]["containers"][0]["args"]
        assert [each for each in arguments[-2:] if each in ("--policy", "4")] == argument


def test_the_first_pods_of_a_run_are_not_replaced_when_its_first_policy_is_told() -> None:
    steps = Steps({"sampler": {"rollStrategy": "RollingUpdate"}})
    steps.settle()
    steps.replace_job(1, ready=1)
    steps.settle()
    steps.roll_out()
    before = copy.deepcopy(steps.children["Deployment", names.sampler_deployment("demo")]["spec"]["template"])
    assert before["spec"]["containers"][0]["args"][-2:] == ["--policy", "0"]
    steps.report(progress=progress(policyVersion=0))
    steps.settle()
    assert steps.status()["rolledPolicy"] == 0
    assert steps.children["Deployment", names.sampler_deployment("demo")]["spec"]["template"] == before


def test_laggards_go_one_by_one() -> None:
    steps = Steps({"sampler": {"rollDeadlineSeconds": 60}})
    steps.settle()
    steps.replace_job(1, ready=1)
    steps.settle()
    steps.roll_out()
    steps.pods = [pod(A, "sampler"), pod(B, "sampler")]
    steps.report(progress=progress(policyVersion=4, samplerVersions=versions(v3=2), laggards=[A, B]))
    deleted = []
    for seconds in (0, 59, 60, 61, 89, 90, 91):
        steps.now = NOW + seconds
        seen_before = len(steps.done)
        steps.settle()
        deleted += [(seconds, each.name) for done in steps.done[seen_before:] for each in done.delete]
        steps.pods = [each for each in steps.pods if each["metadata"]["name"] not in [name for _, name in deleted]]
    assert deleted == [(60, A), (90, B)]
    assert steps.events().count("LaggardDeleted") == 2


def test_nobody_is_judged_by_a_report_from_before_an_m_step() -> None:
    """The learner can't renew it while it learns, and who was behind may have come by the policy since."""
    steps = Steps({"sampler": {"rollDeadlineSeconds": 600}, "deadlines": {"rollingSeconds": 900}})
    steps.settle()
    steps.replace_job(1, ready=1)
    steps.settle()
    steps.roll_out()
    steps.pods = [pod(A, "sampler"), pod(B, "sampler")]
    behind = {"samplerVersions": versions(v0=2), "laggards": [A, B], "policyVersion": 1}
    steps.report(progress=progress(phase="learning", iteration=1, **behind))
    steps.settle()
    steps.now += 1000
    steps.settle()
    assert steps.status()["phase"] != "Failed"
    assert not [each for done in steps.done for each in done.delete if each.kind == "Pod"]
    # The next report is true again: one of them stood still all the time.
    steps.report(progress=progress(iteration=2, samplerVersions=versions(v1=1, v0=1), laggards=[B], policyVersion=2))
    steps.settle()
    assert steps.said("Failed") == ("True", "RollDeadlineExceeded")
