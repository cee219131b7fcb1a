"""Releases of the chart in a cluster: rights, upgrades, and what an uninstall leaves."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from chart import CHART, ROOT, Right, allowed
from operator_process import OperatorProcess
from waiting import eventually

from empg.api.load import parse_run
from empg_operator.builders.children import standing_children
from empg_operator.kinds import CLAIM, EVENT, JOB, LEASE, LISTED, POD, POD_MONITOR, REVISION, RUN, WATCHED, Kind
from empg_operator.settings import Settings
from hack.controlplane.access import Access, CommandError, read_calls

RUN_MANIFEST = """\
apiVersion: empg.dev/v1alpha1
kind: EMPGRun
metadata: {name: kept}
spec:
  model: {name: some/model}
  task: {name: arithmetic}
  em: {iterations: 1}
"""
RUNS = "empgruns.empg.dev"
OF_RUN = ("--field-selector", "involvedObject.kind=EMPGRun")


@dataclass(frozen=True)
class Release:
    """An installed release."""

    name: str
    namespace: str

    @property
    def account(self) -> str:
        """User name of the operator."""
        return f"system:serviceaccount:{self.namespace}:{self.name}-empg"


def install(access: Access, namespace: str, *arguments: str) -> Release:
    """Install or upgrade; a definition that is there already is taken over."""
    release = Release(f"rel-{uuid.uuid4().hex[:6]}", namespace)
    access.helm("install", release.name, str(CHART), "-n", namespace, "--take-ownership", "--wait=false", *arguments)
    return release


@pytest.fixture(scope="module")
def home(control_plane: Access) -> Iterator[str]:
    """The namespace of this module's releases."""
    name = f"ops-{uuid.uuid4().hex[:8]}"
    control_plane.kubectl("create", "namespace", name)
    yield name
    control_plane.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def release(control_plane: Access, home: str) -> Iterator[Release]:
    """A release with default values, for the whole cluster."""
    made = install(control_plane, home)
    yield made
    control_plane.helm("uninstall", made.name, "-n", home)


def resource(kind: Kind, subresource: str = "") -> str:
    group = kind.api_version.rpartition("/")[0]
    return kind.plural + (f".{group}" if group else "") + (f"/{subresource}" if subresource else "")


NEEDED = [
    *((verb, resource(kind)) for kind in WATCHED for verb in ("list", "watch")),
    *((verb, resource(kind)) for kind in (*LISTED, POD_MONITOR) for verb in ("get", "list", "create")),
    *(("patch", resource(kind)) for kind in (*LISTED, POD_MONITOR) if kind != REVISION),
    *((verb, resource(kind)) for kind in (*LISTED, POD_MONITOR) if kind != CLAIM for verb in ["delete"]),
    *((verb, "deployments.apps") for verb in ("get", "create", "patch", "delete")),
    *((verb, resource(JOB)) for verb in ("get", "create", "patch", "delete")),
    ("get", resource(RUN)),
    ("patch", resource(RUN, "status")),
    *((verb, resource(POD)) for verb in ("list", "create", "delete")),
    *((verb, resource(EVENT)) for verb in ("list", "create")),
]
DENIED = [
    *((verb, "secrets") for verb in ("get", "list", "create", "delete")),
    ("create", "pods/exec"),
    ("create", "pods/ephemeralcontainers"),
    ("get", "pods/log"),
    ("patch", "pods"),
    ("delete", "persistentvolumeclaims"),
    *((verb, resource(RUN)) for verb in ("create", "update", "patch", "delete")),
    *((verb, resource(RUN, "status")) for verb in ("get", "update")),
    ("patch", resource(REVISION)),
    ("patch", resource(JOB, "status")),
    ("create", "serviceaccounts/token"),
    ("escalate", "roles.rbac.authorization.k8s.io"),
    ("bind", "roles.rbac.authorization.k8s.io"),
    ("create", "clusterroles.rbac.authorization.k8s.io"),
    ("list", "namespaces"),
    ("list", "nodes"),
    ("list", "customresourcedefinitions.apiextensions.k8s.io"),
    ("create", resource(LEASE)),
    ("create", "validatingwebhookconfigurations.admissionregistration.k8s.io"),
    ("create", "statefulsets.apps"),
]


def test_the_operator_may_do_its_work_and_nothing_else(control_plane: Access, release: Release, namespace: str) -> None:
    assert allowed(control_plane, release.account, NEEDED + DENIED, namespace) == NEEDED


@pytest.mark.parametrize("strategy", ["InPlace", "Alternate"])
def test_the_operator_may_give_runs_their_rights(
    control_plane: Access, release: Release, namespace: str, strategy: str
) -> None:
    manifest = yaml.safe_load(RUN_MANIFEST)
    manifest["metadata"] |= {"namespace": namespace, "uid": str(uuid.uuid4())}
    manifest["spec"]["sampler"] = {"rollStrategy": strategy}
    run = parse_run(json.dumps(manifest).encode(), "test")
    operator = control_plane.service_account(release.namespace, f"{release.name}-empg")
    children = standing_children(
        run, Settings(network_policies=True, api_server_cidrs=("10.0.0.1/32",)), None, pod_monitors=False
    )
    for child in children:
        child["metadata"].pop("ownerReferences", None)  # the garbage collector removes what refers to no run
    said = operator.kubectl(
        "apply", "--server-side", "-f", "-", input=yaml.safe_dump_all(list(children), sort_keys=False)
    )
    assert len(said.splitlines()) == len(children)
    assert said.count("rolebinding.rbac.authorization.k8s.io/") == (2 if strategy == "Alternate" else 1)


def test_the_operator_may_not_give_rights_it_lacks(control_plane: Access, release: Release, namespace: str) -> None:
    operator = control_plane.service_account(release.namespace, f"{release.name}-empg")
    with pytest.raises(CommandError, match="attempting to grant RBAC permissions not currently held"):
        operator.kubectl("create", "role", "thief", "--verb=get", "--resource=secrets", "-n", namespace)


@pytest.mark.parametrize("scope", ["cluster", "namespace"])
def test_the_operator_never_lacks_a_right(
    empgruns: Access, home: str, namespace: str, tmp_path: Path, scope: str
) -> None:
    if empgruns.audit_log is None:
        pytest.skip("the cluster of EMPG_TEST_KUBECONFIG shows no audit log")
    values = [] if scope == "cluster" else ["--set", f"watchNamespaces={{{namespace}}},leaderElection=true"]
    values += ["--set", "runs.networkPolicies.enabled=true,runs.networkPolicies.apiServerCIDRs={10.0.0.1/32}"]
    made = install(empgruns, home, *values)
    account = empgruns.service_account(home, f"{made.name}-empg")
    container = json.loads(empgruns.kubectl("get", "deployment", f"{made.name}-empg", "-n", home, "-o", "json"))
    flags = [
        flag
        for flag in container["spec"]["template"]["spec"]["containers"][0]["args"]
        if not flag.startswith(("--metrics-port", "--log-format"))
    ]
    begun = empgruns.audit_log.stat().st_size
    with closing(OperatorProcess(account.kubeconfig, tmp_path / "operator.log", *flags)) as operator:
        operator.start()
        empgruns.kubectl("create", "-n", namespace, "-f", str(ROOT / "manifests/examples/demo-cpu.yaml"))
        # Nothing provides volumes here, which the operator finds out from pods, claim and events.
        eventually(lambda: condition(empgruns, namespace, "LearnerReady") == "ClaimPending", "diagnosis", 60)
        suspend = '{"spec": {"suspend": true}}'
        empgruns.kubectl("patch", "empgrun", "demo", "-n", namespace, "--type", "merge", "-p", suspend)
        eventually(lambda: not empgruns.kubectl("get", "jobs", "-n", namespace, "-o", "name"), "end of the attempt")
        eventually(lambda: empgruns.kubectl("get", "events", "-n", namespace, "-o", "name", *OF_RUN), "event")
        assert operator.stop() == 0
    calls = [call for call in read_calls(empgruns.audit_log, begun) if call.user == made.account]
    assert {"jobs", "pods", "events", "empgruns/status"} <= {call.resource for call in calls}
    others = {call.namespace for call in calls} - {"", home, namespace}  # of other tests, perhaps on their way out
    assert [call for call in calls if call.code == 403 and call.namespace not in others] == []
    empgruns.helm("uninstall", made.name, "-n", home)


def condition(access: Access, namespace: str, kind: str) -> str:
    """Reason of a condition of the run `demo`; empty if it has none."""
    reason = f"jsonpath={{.status.conditions[?(@.type=='{kind}')].reason}}"
    return access.kubectl("get", "empgrun", "demo", "-n", namespace, "-o", reason)


def test_an_operator_of_some_namespaces_has_no_rights_in_others(
    control_plane: Access, home: str, namespace: str
) -> None:
    narrow = install(
        control_plane, home, "--set", f"watchNamespaces={{{namespace}}},leaderElection=true,rbac.aggregate=false"
    )
    try:
        assert allowed(control_plane, narrow.account, NEEDED, namespace) == NEEDED
        assert allowed(control_plane, narrow.account, NEEDED, "default") == []
        election = [(verb, resource(LEASE)) for verb in ("get", "create", "update")]
        assert allowed(control_plane, narrow.account, election, home) == election
        of_release = f"app.kubernetes.io/instance={narrow.name}"
        cluster_wide = control_plane.kubectl("get", "clusterroles", "-o", "name", "-l", of_release)
        assert cluster_wide == ""
    finally:
        control_plane.helm("uninstall", narrow.name, "-n", home)


@pytest.mark.parametrize(
    ("role", "may", "may_not"),
    [
        (
            "view",
            [("get", RUNS), ("watch", RUNS), ("get", f"{RUNS}/status")],
            [("create", RUNS), ("patch", f"{RUNS}/scale"), ("patch", f"{RUNS}/status")],
        ),
        (
            "edit",
            [("get", RUNS), ("create", RUNS), ("delete", RUNS), ("patch", f"{RUNS}/scale")],
            [("patch", f"{RUNS}/status")],
        ),
        ("admin", [("create", RUNS), ("patch", f"{RUNS}/status")], []),
    ],
)
def test_the_roles_of_the_cluster_cover_runs(
    control_plane: Access, release: Release, namespace: str, role: str, may: list[Right], may_not: list[Right]
) -> None:
    user = f"{role}er"
    control_plane.kubectl("create", "rolebinding", user, "--clusterrole", role, "--user", user, "-n", namespace)
    eventually(lambda: allowed(control_plane, user, may + may_not, namespace) == may, f"aggregation to {role}")


def test_an_upgrade_brings_a_changed_definition(control_plane: Access, release: Release, tmp_path: Path) -> None:
    def described() -> str:
        columns = "jsonpath={.spec.versions[0].additionalPrinterColumns[?(@.name=='Phase')].description}"
        return control_plane.kubectl("get", "crd", "empgruns.empg.dev", "-o", columns)

    assert described() == "What the run does."
    changed = tmp_path / "empg"
    shutil.copytree(CHART, changed)
    template = changed / "templates/crd.yaml"
    template.write_text(template.read_text().replace("description: What the run does.", "description: Changed."))
    try:
        control_plane.helm("upgrade", release.name, str(changed), "-n", release.namespace, "--wait=false")
        assert described() == "Changed."
    finally:
        control_plane.helm("upgrade", release.name, str(CHART), "-n", release.namespace, "--wait=false")
    assert described() == "What the run does."


def test_definition_and_runs_outlive_the_release(control_plane: Access, home: str, namespace: str) -> None:
    passing = install(control_plane, home)
    control_plane.kubectl("wait", "--for=condition=Established", "crd/empgruns.empg.dev", "--timeout=30s")
    control_plane.kubectl("create", "-n", namespace, "-f", "-", input=RUN_MANIFEST)
    said = control_plane.helm("uninstall", passing.name, "-n", home)
    assert "kept due to the resource policy" in said
    assert "[CustomResourceDefinition] empgruns.empg.dev" in said
    assert control_plane.kubectl("get", "empgruns", "-n", namespace, "-o", "name") == "empgrun.empg.dev/kept\n"
    left = control_plane.kubectl(
        "get", "deployments,services,serviceaccounts", "-n", home, "-o", "name",
        "-l", f"app.kubernetes.io/instance={passing.name}",
    )  # fmt: skip
    assert left == ""


def test_a_release_after_an_uninstall_takes_the_definition_back(control_plane: Access, home: str) -> None:
    for _ in range(2):
        again = install(control_plane, home)
        owner = control_plane.kubectl(
            "get", "crd", "empgruns.empg.dev", "-o", r"jsonpath={.metadata.annotations.meta\.helm\.sh/release-name}"
        )
        assert owner == again.name
        control_plane.helm("uninstall", again.name, "-n", home)
