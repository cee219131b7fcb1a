"""The control plane of these tests behaves like any other: access is checked, requests are recorded."""

from __future__ import annotations

import pytest

from hack.controlplane.access import Access, CommandError, read_calls


def test_a_service_account_without_role_may_not_read_pods(control_plane: Access, namespace: str) -> None:
    nobody = control_plane.service_account(namespace, "default")
    with pytest.raises(CommandError, match=rf'Forbidden.*"system:serviceaccount:{namespace}:default" cannot list'):
        nobody.kubectl("get", "pods", "-n", namespace)


def test_the_audit_log_counts_writes(control_plane: Access, namespace: str) -> None:
    if control_plane.audit_log is None:
        pytest.skip("the cluster of EMPG_TEST_KUBECONFIG shows no audit log")
    before = control_plane.audit_log.stat().st_size
    for name in ("a", "b", "c"):
        control_plane.kubectl("create", "configmap", name, "-n", namespace)
    control_plane.kubectl("delete", "configmap", "a", "-n", namespace)
    calls = [call for call in read_calls(control_plane.audit_log, before) if call.namespace == namespace]
    writes = [(call.verb, call.name, call.code) for call in calls if call.writes and call.resource == "configmaps"]
    assert writes == [
        ("create", "a", 201),
        ("create", "b", 201),
        ("create", "c", 201),
        ("delete", "a", 200),
    ]


def test_pod_security_refuses_a_privileged_pod(control_plane: Access, namespace: str) -> None:
    control_plane.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    with pytest.raises(CommandError, match='violates PodSecurity "restricted'):
        control_plane.kubectl("run", "root", "-n", namespace, "--image=none", "--privileged")
