"""Children that only some settings want: made, and deleted when an operator with other settings follows."""

from __future__ import annotations

from operator_process import OperatorProcess
from run_documents import run
from run_view import RunView
from waiting import eventually

from hack.controlplane.access import Access
from hack.rest import Rest

MONITORS = "podmonitors.monitoring.coreos.com"
KEPT = ["--network-policies", "--api-server-cidrs=10.0.0.1/32"]


def test_what_earlier_settings_wanted_is_deleted(
    empgruns: Access, monitoring: None, namespace: str, operator: OperatorProcess
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
    empgruns: Access, monitoring: None, namespace: str, operator: OperatorProcess
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
