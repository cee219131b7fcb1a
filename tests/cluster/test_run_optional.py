"""Children that only some settings want: made, and deleted when an operator with other settings follows."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from operator_process import OperatorProcess
from run_documents import run
from run_view import RunView
from waiting import eventually

from hack.controlplane.access import Access
from hack.rest import Rest

MONITORS = "podmonitors.monitoring.coreos.com"
KEPT = ["--network-policies", "--api-server-cidrs=10.0.0.1/32"]


@pytest.fixture
def pod_monitors(empgruns: Access) -> Iterator[None]:
    """The cluster has the kind PodMonitor, with any content, as long as the test lasts."""
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": anything}}
    names = {"kind": "PodMonitor", "plural": "podmonitors", "singular": "podmonitor"}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": MONITORS},
        "spec": {"group": "monitoring.coreos.com", "scope": "Namespaced", "names": names, "versions": [version]},
    }
    empgruns.kubectl("apply", "--server-side", "-f", "-", input=json.dumps(definition))
    empgruns.kubectl("wait", "--for=condition=Established", f"crd/{MONITORS}", "--timeout=30s")
    yield
    empgruns.kubectl("delete", "crd", MONITORS, "--ignore-not-found")


def test_what_earlier_settings_wanted_is_deleted(
    empgruns: Access, pod_monitors: None, namespace: str, operator: OperatorProcess
) -> None:
    def optional() -> list[str]:
        return empgruns.kubectl("get", f"networkpolicies,{MONITORS}", "-n", namespace, "-o", "name").split()

    def restart(*flags: str) -> None:
        assert operator.stop() == 0
        operator.flags = [f"--namespaces={namespace}", *flags]
        operator.start()

    policies = [f"networkpolicy.networking.k8s.io/demo-{role}" for role in ("learner", "sampler")]
    monitor = ["podmonitor.monitoring.coreos.com/demo"]
    restart(*KEPT)
    demo = RunView(Rest(empgruns.kubeconfig, "test"), namespace, run("demo"))
    eventually(lambda: optional() == [*policies, *monitor], "policies and monitor")
    restart(*KEPT, "--no-pod-monitors")
    eventually(lambda: optional() == policies, "end of the monitor")
    restart()
    eventually(lambda: optional() == monitor, "end of the policies, and another monitor")
    assert demo.child("ConfigMap", "demo-run")
    assert operator.metric("empg_operator_reconcile_total", result="bug") == 0


def test_runs_do_without_monitors_once_their_kind_is_gone(
    empgruns: Access, pod_monitors: None, namespace: str, operator: OperatorProcess
) -> None:
    """An operator that runs learns of it by the first answer, not by the next list of everything."""
    rest = Rest(empgruns.kubeconfig, "test")
    assert operator.stop() == 0
    operator.start()
    first = RunView(rest, namespace, run("first"))
    monitors = ("get", MONITORS, "-n", namespace, "-o", "name")
    eventually(lambda: empgruns.kubectl(*monitors).split() == ["podmonitor.monitoring.coreos.com/first"], "monitor")
    empgruns.kubectl("delete", "crd", MONITORS, "--timeout=30s")
    second = RunView(rest, namespace, run("second"))
    second.until_attempt(1)
    first.change({"optimizer": {"learningRate": 2e-6}})
    eventually(lambda: first.status()["observedGeneration"] == 2, "pass over the run that had a monitor")
    assert second.condition("Accepted")["status"] == "True"
    assert operator.metric("empg_operator_reconcile_total", result="unavailable") == 0
    assert operator.metric("empg_operator_reconcile_total", result="bug") == 0
