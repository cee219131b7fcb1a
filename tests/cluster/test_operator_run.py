"""The operator on a real control plane: what it makes of a run, and that it leaves alone what is as it should be."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest
from operator_process import OperatorProcess
from run_documents import run
from run_view import RunView
from simulated_node import SimulatedNode
from waiting import eventually

from hack.controlplane.access import Access, read_calls
from hack.rest import Rest

AGENT = "empg-operator"


@pytest.fixture
def rest(empgruns: Access) -> Rest:
    return Rest(empgruns.kubeconfig, "test")


def writes(cluster: Access, namespace: str, since: int) -> Counter[tuple[str, str, str]]:
    """What the operator wrote in a namespace since the audit log had this size."""
    if cluster.audit_log is None:
        pytest.skip("the cluster of EMPG_TEST_KUBECONFIG shows no audit log")
    calls = [call for call in read_calls(cluster.audit_log, since) if call.agent == AGENT and call.writes]
    return Counter((call.verb, call.resource, call.name) for call in calls if call.namespace == namespace)


def size(cluster: Access) -> int:
    """Of the audit log, once what was asked before is in it."""
    return cluster.audit_log.stat().st_size if cluster.audit_log else 0


def test_a_run_goes_from_nothing_to_its_end(
    empgruns: Access, namespace: str, node: SimulatedNode, operator: OperatorProcess, rest: Rest
) -> None:
    began = size(empgruns)
    demo = RunView(rest, namespace, run("demo", {"sampler.replicas": 2, "sampler.accelerator": ""}))
    [learner] = node.ready(namespace, demo.learner_pods)
    node.ready(namespace, demo.sampler_pods, count=2)
    demo.report(iteration=0, unitsDone=1, unitsTotal=8)
    demo.until_phase("Sampling")
    assert {kind for kind, _ in demo.children()} >= {
        "ConfigMap",
        "ControllerRevision",
        "Deployment",
        "Job",
        "PersistentVolumeClaim",
        "Role",
        "RoleBinding",
        "Service",
        "ServiceAccount",
    }
    demo.report(iteration=3, phase="done", policyVersion=3, reward=0.75)
    node.finish(learner)
    status = demo.until_phase("Complete")
    eventually(lambda: not node.pods(namespace, demo.sampler_pods), "end of the samplers")
    assert status["progress"]["reward"] == 0.75, "the learner's part of the status is left alone"
    assert "completionTime" in status
    assert demo.until_condition("Complete", "True")
    eventually(lambda: {"AttemptStarted", "Completed"} <= set(demo.events()), "both events")
    made = writes(empgruns, namespace, began)
    assert made["create", "jobs", "demo-learner-1"] == 1
    assert sum(made.values()) < 40, f"a life of one attempt took {made}"
    assert operator.metric("empg_run_phase", name="demo", phase="Complete") == 1
    assert operator.metric("empg_operator_reconcile_total", result="bug") == 0


def test_a_restart_with_nothing_changed_writes_nothing(
    empgruns: Access, namespace: str, node: SimulatedNode, operator: OperatorProcess, rest: Rest
) -> None:
    demo = RunView(rest, namespace, run("demo", {"sampler.accelerator": ""}))
    node.ready(namespace, demo.sampler_pods)
    demo.report(iteration=1, unitsDone=1, unitsTotal=8, policyVersion=1)
    demo.until_condition("Ready", "True")

    def calm() -> bool:
        since = size(empgruns)
        time.sleep(2)
        return not writes(empgruns, namespace, since)

    eventually(calm, "end of all writes")
    before = demo.status()
    assert operator.stop() == 0
    restarted = size(empgruns)
    operator.start()
    eventually(lambda: operator.metric("empg_operator_reconcile_total", result="success") >= 1, "pass over the run")
    time.sleep(2)
    assert writes(empgruns, namespace, restarted) == {}
    assert demo.status() == before


def test_steady_runs_are_not_written_to(
    empgruns: Access, namespace: str, node: SimulatedNode, operator: OperatorProcess, rest: Rest
) -> None:
    """Neither lists of everything nor passes without a change lead to a write."""
    assert operator.stop() == 0
    operator.flags.append("--resync-seconds=0.5")
    operator.start()
    demo = RunView(rest, namespace, run("demo", {"sampler.accelerator": ""}))
    node.ready(namespace, demo.sampler_pods)
    demo.report(iteration=1, unitsDone=1, unitsTotal=8, policyVersion=1)
    demo.until_condition("Ready", "True")
    time.sleep(2)
    steady = size(empgruns)
    time.sleep(4)
    assert writes(empgruns, namespace, steady) == {}


def test_children_that_somebody_deletes_or_edits_are_repaired(
    namespace: str, node: SimulatedNode, operator: OperatorProcess, rest: Rest
) -> None:
    assert operator.stop() == 0
    operator.flags.append("--resync-seconds=0.5")
    operator.start()
    demo = RunView(rest, namespace, run("demo", {"sampler.accelerator": "", "sampler.replicas": 2}))
    node.ready(namespace, demo.sampler_pods, count=2)
    before = demo.children()

    demo.delete_child("ConfigMap", "demo-run")
    demo.delete_child("Deployment", "demo-sampler")
    demo.patch_child("Service", "demo-learner", {"spec": {"publishNotReadyAddresses": False}})
    demo.patch_child("Role", "demo-learner", {"rules": []})
    eventually(lambda: demo.child("ConfigMap", "demo-run"), "new ConfigMap")
    eventually(lambda: (demo.child("Deployment", "demo-sampler") or {}).get("spec"), "new Deployment")

    def repaired() -> bool:
        service, role = demo.child("Service", "demo-learner"), demo.child("Role", "demo-learner")
        assert service
        assert role
        return bool(service["spec"].get("publishNotReadyAddresses") and role["rules"])

    eventually(repaired, "repair of Service and Role")
    node.ready(namespace, demo.sampler_pods, count=2)
    demo.patch_child("Deployment", "demo-sampler", {"spec": {"replicas": 5}})
    node.ready(namespace, demo.sampler_pods, count=2)
    after = demo.children()
    assert set(after) == set(before)
    assert after["ConfigMap", "demo-run"]["data"] == before["ConfigMap", "demo-run"]["data"]


def test_a_deleted_job_is_followed_by_the_next_attempt(
    namespace: str, node: SimulatedNode, operator: OperatorProcess, rest: Rest
) -> None:
    demo = RunView(rest, namespace, run("demo", {"sampler.accelerator": ""}))
    node.ready(namespace, demo.learner_pods)
    demo.delete_child("Job", "demo-learner-1")
    eventually(lambda: demo.child("Job", "demo-learner-2"), "second attempt", seconds=45)
    status = demo.until_phase("Starting")
    assert status["attempt"] == 2
    assert status["restarts"] == 0, "what a user deletes is not a crash"


def test_deletion_of_a_run_leaves_the_claim_and_no_series(
    namespace: str, node: SimulatedNode, operator: OperatorProcess, rest: Rest
) -> None:
    demo = RunView(rest, namespace, run("demo", {"sampler.accelerator": ""}))
    node.ready(namespace, demo.sampler_pods)
    eventually(lambda: operator.metric("empg_run_info", name="demo"), "series of the run")
    demo.delete()
    eventually(lambda: {kind for kind, _ in demo.children()} == {"PersistentVolumeClaim"}, "end of the children")
    eventually(lambda: operator.metric("empg_run_info", name="demo") == 0, "end of the series")
    again = RunView(rest, namespace, run("demo", {"sampler.accelerator": "", "storage.adopt": True}))
    node.ready(namespace, again.sampler_pods)
    claim = again.child("PersistentVolumeClaim", "demo-data")
    assert claim
    assert claim["metadata"].get("ownerReferences", []) == []


def test_a_namespace_is_left_to_its_end(
    empgruns: Access, namespace: str, node: SimulatedNode, operator: OperatorProcess, rest: Rest
) -> None:
    demo = RunView(rest, namespace, run("demo", {"sampler.accelerator": ""}))
    node.ready(namespace, demo.sampler_pods)
    empgruns.kubectl("delete", "namespace", namespace, "--wait=false")
    eventually(lambda: operator.metric("empg_run_info", name="demo") == 0, "end of the series")
    assert operator.metric("empg_operator_reconcile_total", result="refused") == 0
    assert operator.metric("empg_operator_reconcile_total", result="denied") == 0
    tries = [operator.metric("empg_operator_api_requests_total", verb=v, code="403") for v in ("apply", "create")]
    assert sum(tries) <= 1, "once is enough to learn that the namespace goes"
    assert "WARNING" not in operator.log.read_text(), "nobody is told that nothing can be made here"


def test_a_run_of_another_controller_is_left_alone(
    empgruns: Access, namespace: str, operator: OperatorProcess, rest: Rest
) -> None:
    began = size(empgruns)
    theirs = RunView(rest, namespace, run("theirs", {"managedBy": "example.com/other"}))
    ours = RunView(rest, namespace, run("ours"))
    ours.until_phase("Starting")
    assert theirs.status() == {}
    assert theirs.children() == {}
    assert all("theirs" not in name for _, _, name in writes(empgruns, namespace, began))
    assert operator.metric("empg_run_info", name="theirs") == 0


def test_metrics_tell_the_age_of_watches_and_the_outcome_of_requests(
    namespace: str, operator: OperatorProcess, rest: Rest
) -> None:
    for resource in ("empgruns", "deployments", "jobs"):
        assert 0 < operator.metric("empg_operator_watch_last_event_age_seconds", resource=resource) < 20
    RunView(rest, namespace, run("demo")).until_phase("Starting")
    assert operator.metric("empg_operator_watch_last_event_age_seconds", resource="empgruns") < 5
    assert operator.metric("empg_operator_api_requests_total", verb="create", code="201") >= 1
    assert operator.metric("empg_operator_api_request_seconds_count", verb="apply_status") >= 1
    assert operator.metric("empg_operator_workqueue_latency_seconds_count") >= 1
    assert operator.metric("empg_operator_cached_objects", kind="EMPGRun") == 1
    assert operator.answers("/healthz")


def test_an_account_without_rights_is_told_so(empgruns: Access, namespace: str, tmp_path: Path) -> None:
    nobody = empgruns.service_account(namespace, "default")
    process = OperatorProcess(nobody.kubeconfig, tmp_path / "nobody.log", f"--namespaces={namespace}")
    process.start(wait=False)
    assert process.wait(20) == 1
    assert "cannot list resource" in process.log.read_text()


def test_it_ends_within_a_second_or_two(operator: OperatorProcess) -> None:
    began = time.monotonic()
    assert operator.stop() == 0
    assert time.monotonic() - began < 4
    assert "Traceback" not in operator.log.read_text()
