"""The rights that the chart gives are enough for a whole life of a run, and the operator needs no others."""

from __future__ import annotations

import copy
import json
from contextlib import closing
from pathlib import Path

import pytest
from chart import Object, render
from operator_process import OperatorProcess
from run_documents import run
from run_view import RunView
from simulated_node import SimulatedNode
from waiting import eventually

from hack.controlplane.access import Access
from hack.rest import Rest

RUN = {"sampler.accelerator": "", "ttlSecondsAfterFinished": 1}
RIGHTS = [f"--show-only=templates/{part}.yaml" for part in ("rbac", "serviceaccount")]


def as_list(objects: list[Object]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})


def apply(cluster: Access, namespace: str, objects: list[Object]) -> None:
    cluster.kubectl("apply", "-n", namespace, "-f", "-", input=as_list(objects))


@pytest.mark.parametrize("everywhere", [False, True], ids=["one namespace", "all namespaces"])
def test_a_run_is_looked_after_with_the_rights_of_the_chart(
    empgruns: Access, namespace: str, node: SimulatedNode, tmp_path: Path, everywhere: bool
) -> None:
    values = ["--set", f"fullnameOverride=empg-{namespace},leaderElection=true"]
    if not everywhere:
        values += ["--set", f"watchNamespaces={{{namespace}}}"]
    objects = render(empgruns, *values, *RIGHTS, namespace=namespace)
    apply(empgruns, namespace, objects)
    account = empgruns.service_account(namespace, f"empg-{namespace}")
    flags = [
        "--leader-election",
        f"--lease-namespace={namespace}",
        "--network-policies",
        "--api-server-cidrs=10.0.0.1/32",
    ]
    if not everywhere:
        flags.append(f"--namespaces={namespace}")
    operator = OperatorProcess(account.kubeconfig, tmp_path / "operator.log", *flags)
    with closing(operator):
        operator.start()
        demo = RunView(Rest(empgruns.kubeconfig, "test"), namespace, run("demo", RUN))
        node.ready(namespace, demo.sampler_pods)
        node.finish(node.ready(namespace, demo.learner_pods)[0], exit_code=1)
        demo.until_phase("Restarting")
        demo.change({"suspend": True})
        demo.until_phase("Suspended")
        demo.change({"suspend": False})
        [learner] = node.ready(namespace, demo.learner_pods)
        demo.report(attempt=2, iteration=3, phase="done")
        node.finish(learner)
        demo.until_phase("Complete")
        if not everywhere:
            assert operator.metric("empg_operator_api_requests_total", code="403") == 0
        for result in ("refused", "denied"):
            assert operator.metric("empg_operator_reconcile_total", result=result) == 0
        assert operator.stop() == 0
    # Namespaces of earlier tests may be on their way out.
    said = [line for line in operator.log.read_text().splitlines() if "is being terminated" not in line]
    assert [line for line in said if "orbidden" in line] == []
    empgruns.kubectl("delete", "-n", namespace, "-f", "-", "--ignore-not-found", input=as_list(objects))


def test_a_right_that_lacks_is_told_as_such_until_it_is_given(empgruns: Access, namespace: str, tmp_path: Path) -> None:
    values = ["--set", f"fullnameOverride=empg-{namespace},watchNamespaces={{{namespace}}}"]
    objects = render(empgruns, *values, *RIGHTS, namespace=namespace)
    fewer = copy.deepcopy(objects)
    for role in fewer:
        if "rules" in role:
            role["rules"] = [rule for rule in role["rules"] if "empgruns/status" not in rule["resources"]]
    assert fewer != objects
    apply(empgruns, namespace, fewer)
    account = empgruns.service_account(namespace, f"empg-{namespace}")
    operator = OperatorProcess(account.kubeconfig, tmp_path / "operator.log", f"--namespaces={namespace}")
    with closing(operator):
        operator.start()
        demo = RunView(Rest(empgruns.kubeconfig, "test"), namespace, run("demo", RUN))
        eventually(lambda: operator.metric("empg_operator_reconcile_total", result="denied"), "denied pass")
        assert operator.metric("empg_operator_api_requests_total", verb="apply_status", code="403") > 0
        assert {said.partition(":")[0] for said in demo.told("ApplyFailed")} == {
            "Role demo-learner",
            "RoleBinding demo-learner",
        }
        apply(empgruns, namespace, objects)
        demo.until_phase("Starting", seconds=60)
        for result in ("refused", "unavailable", "bug"):
            assert operator.metric("empg_operator_reconcile_total", result=result) == 0


def test_a_namespace_that_is_deleted_stops_nobody_elses_runs(empgruns: Access, namespace: str, tmp_path: Path) -> None:
    other = f"{namespace}-b"
    empgruns.kubectl("create", "namespace", other)
    values = ["--set", f"fullnameOverride=empg-{namespace},watchNamespaces={{{namespace},{other}}}"]
    empgruns.kubectl("apply", "-f", "-", input=as_list(render(empgruns, *values, *RIGHTS, namespace=namespace)))
    account = empgruns.service_account(namespace, f"empg-{namespace}")
    flags = (f"--namespaces={other}", f"--namespaces={namespace}", "--resync-seconds=1")
    operator = OperatorProcess(account.kubeconfig, tmp_path / "operator.log", *flags)
    with closing(operator):
        operator.start()
        assert operator.metric("empg_operator_refused_namespaces") == 0
        empgruns.kubectl("delete", "namespace", other)
        eventually(lambda: operator.metric("empg_operator_refused_namespaces") == 1, "refused list", 60)
        RunView(Rest(empgruns.kubeconfig, "test"), namespace, run("before", RUN)).until_phase("Starting")
        assert operator.stop() == 0
        operator.start()
        assert operator.metric("empg_operator_refused_namespaces") == 1
        RunView(Rest(empgruns.kubeconfig, "test"), namespace, run("after", RUN)).until_phase("Starting")
        assert f"namespace {other} is left to later lists" in operator.log.read_text()
        assert operator.stop() == 0
