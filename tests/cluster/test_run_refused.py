"""Children that can't be made: the run says why, nothing of others is taken over, and it goes on when it can."""

from __future__ import annotations

import json

from operator_process import OperatorProcess
from run_documents import run
from run_view import RunView
from waiting import eventually

from hack.controlplane.access import Access
from hack.rest import Rest

SECONDS = 90.0
"""What was refused is tried again after half a minute."""


def test_a_quota_of_jobs_is_named_and_waited_for(empgruns: Access, namespace: str, operator: OperatorProcess) -> None:
    empgruns.kubectl("create", "quota", "no-jobs", "--hard=count/jobs.batch=0", "-n", namespace)
    demo = RunView(Rest(empgruns.kubeconfig, "test"), namespace, run("demo"))
    for kind in ("Accepted", "LearnerReady", "Ready"):
        said = demo.until_reason(kind, "ApplyFailed")
        assert said["status"] == "False"
        assert "exceeded quota: no-jobs" in said["message"]
    assert demo.status()["attempt"] == 0
    assert demo.status()["restarts"] == 0
    empgruns.kubectl("delete", "quota", "no-jobs", "-n", namespace)
    eventually(lambda: demo.child("Job", "demo-learner-1"), "first attempt", SECONDS)
    assert demo.until_condition("Accepted", "True")["reason"] == "Accepted"
    assert demo.events().count("AttemptStarted") == 1


def test_what_is_not_the_runs_is_not_taken_over(empgruns: Access, namespace: str, operator: OperatorProcess) -> None:
    """Not even a claim, which would go with the run."""
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "100Gi"}}}
    theirs = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "demo-run"}, "data": {"mine": "yes"}},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "demo-data"}, "spec": claim},
    ]
    made = json.dumps({"apiVersion": "v1", "kind": "List", "items": theirs})
    empgruns.kubectl("create", "-n", namespace, "-f", "-", input=made)
    rest = Rest(empgruns.kubeconfig, "test")
    demo = RunView(rest, namespace, run("demo", {"storage.whenDeleted": "Delete"}), volume=False)
    said = demo.until_reason("Accepted", "ApplyFailed")
    assert "ConfigMap demo-run: it exists, and not because of this run" in said["message"]
    eventually(lambda: len(demo.told("ApplyFailed")) == 2, "events about both")
    assert any("spec.storage.claimName" in message for message in demo.told("ApplyFailed"))
    for kind, name in (("ConfigMap", "demo-run"), ("PersistentVolumeClaim", "demo-data")):
        found = demo.child(kind, name)
        assert found
        assert "ownerReferences" not in found["metadata"]
        assert "labels" not in found["metadata"]
        empgruns.kubectl("delete", kind, name, "-n", namespace)
    eventually(lambda: demo.children().keys() >= {("ConfigMap", "demo-run")}, "the run's own", SECONDS)
    eventually(lambda: demo.condition("Accepted").get("status") == "True", "end of the refusals", SECONDS)
    assert operator.metric("empg_operator_reconcile_total", result="bug") == 0
