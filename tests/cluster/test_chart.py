"""What the chart renders to, by Helm and the API server."""

from __future__ import annotations

import copy
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from chart import CHART, KUBERNETES, MONITORING, ROOT, VALUES, Object, notes, parse, pick, render

from empg import __version__
from empg.api.load import parse_run
from empg.api.run import EMPGRun
from empg_operator import flags
from empg_operator.builders.network import DNS_PORTS
from empg_operator.settings import Settings
from hack.controlplane.access import Access, CommandError
from hack.packaging.__main__ import rendered_files

BY_NAME = {path.name.removesuffix("-values.yaml"): path for path in VALUES}


@pytest.fixture(scope="module")
def namespaces(control_plane: Access) -> None:
    """The namespaces that the values speak of."""
    for name in ("team-a", "team-b", "empg-system"):
        manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        control_plane.kubectl("apply", "--server-side", "-f", "-", input=json.dumps(manifest))


def arguments(values: str) -> list[str]:
    return ["--values", str(BY_NAME[values])] if values else []


def test_helm_finds_nothing_to_lint(control_plane: Access) -> None:
    for path in VALUES:
        said = control_plane.helm("lint", str(CHART), "--strict", "--values", str(path))
        assert "1 chart(s) linted, 0 chart(s) failed" in said


@pytest.mark.parametrize("values", ["", *BY_NAME])
def test_the_api_server_takes_every_object(control_plane: Access, namespaces: None, values: str) -> None:
    objects = render(control_plane, *arguments(values))
    known = [document for document in objects if document["apiVersion"] != MONITORING]
    said = control_plane.kubectl(
        "apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-", input=yaml.safe_dump_all(known)
    )
    assert len(said.splitlines()) == len(known) > 1


def test_the_operator_reads_its_command_line(control_plane: Access) -> None:
    container = pick(render(control_plane), "Deployment")["spec"]["template"]["spec"]["containers"][0]
    settings, others = flags.parse(container["args"])
    assert settings == Settings()
    assert (others.log_format, others.log_level) == ("json", "INFO")


def test_every_setting_can_be_set(control_plane: Access) -> None:
    objects = render(control_plane, *arguments("full"), namespace="ops")
    settings, others = flags.parse(pick(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["args"])
    assert settings == Settings(
        sampler_image="mirror/empg/sampler:1.2",
        learner_image=f"empg/trainer@sha256:{2:064}",
        image_pull_policy="Always",
        image_pull_secrets=("mirror",),
        namespaces=("team-a", "team-b"),
        workers=16,
        resync_seconds=60,
        metrics_port=9090,
        network_policies=True,
        extra_egress=(
            {"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"port": 443}]},
            {"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}]},
        ),
        api_server_cidrs=("10.0.0.1/32",),
        pod_monitor_labels={"release": "prometheus"},
        pod_monitors=False,
        leader_election=True,
        lease_namespace="ops",
        lease_name="rel-empg",
    )
    assert settings.model_fields_set == set(Settings.model_fields), "a setting that the chart can't set"
    assert (others.log_format, others.log_level) == ("text", "DEBUG")


@pytest.mark.parametrize("values", ["", *BY_NAME])
def test_pods_of_the_release_pass_the_level_restricted(
    control_plane: Access, namespace: str, namespaces: None, values: str
) -> None:
    control_plane.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    text = control_plane.helm("template", "rel", str(CHART), "--kube-version", KUBERNETES, *arguments(values))
    template = copy.deepcopy(pick(parse(text), "Deployment")["spec"]["template"])
    operator = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**template["metadata"], "name": "operator"},
        "spec": template["spec"],
    }
    test = pick(parse(text), "Pod")
    for pod in (operator, test):
        pod["metadata"].pop("namespace", None)
        pod["spec"]["serviceAccountName"] = "default"
        pod["spec"].pop("priorityClassName", None)  # system classes are for system namespaces
        control_plane.kubectl("create", "--dry-run=server", "--namespace", namespace, "-f", "-", input=json.dumps(pod))


def test_user_and_group_can_be_left_to_the_cluster(control_plane: Access) -> None:
    """As OpenShift wants it."""
    unset = "podSecurityContext.runAsUser=null,podSecurityContext.runAsGroup=null"
    assert unset in (ROOT / "docs/kubernetes.md").read_text()
    said = control_plane.helm("template", "rel", str(CHART), "--kube-version", KUBERNETES, "--set", unset)
    pods = [pick(parse(said), "Deployment")["spec"]["template"], pick(parse(said), "Pod")]
    expected = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert [pod["spec"]["securityContext"] for pod in pods] == [expected, expected]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("replicas=2", "replicas above 1 need leaderElection=true"),
        ("replica=1", "additional properties 'replica' not allowed"),
        ("image.pullPolicy=Sometimes", "value must be one of 'Always', 'IfNotPresent', 'Never'"),
        ("image.digest=sha256:12", "does not match pattern"),
        ("runs.samplerImage.repository=", "minLength: got 0, want 1"),
        ("workers=0", "minimum: got 0, want 1"),
        ("metrics.serviceMonitor.interval=often", "does not match pattern"),
        ("serviceAccount.create=false", r"serviceAccount\.name is needed"),
        ("runs.networkPolicies.enabled=true", r"needs runs\.networkPolicies\.apiServerCIDRs, the addresses that"),
        ("watchNamespaces=team", "got string, want array"),
    ],
)
def test_wrong_values_are_refused_with_a_reason(control_plane: Access, value: str, message: str) -> None:
    with pytest.raises(CommandError, match=message):
        render(control_plane, "--set", value)


@pytest.mark.parametrize("way", ["apiServerCIDRs={10.0.0.1/32}", "extraEgress[0].to[0].ipBlock.cidr=10.0.0.0/8"])
def test_policies_of_runs_need_a_way_to_the_api_server(control_plane: Access, way: str) -> None:
    values = f"runs.networkPolicies.enabled=true,runs.networkPolicies.{way}"
    container = pick(render(control_plane, "--set", values), "Deployment")["spec"]["template"]["spec"]["containers"][0]
    settings, _ = flags.parse(container["args"])
    assert settings.network_policies
    assert settings.api_server_cidrs or settings.extra_egress


@pytest.mark.parametrize(
    ("given", "way"),
    [
        ([], {"ports": [{"port": 443, "protocol": "TCP"}, {"port": 6443, "protocol": "TCP"}]}),
        (
            ["--set", "networkPolicy.apiServerCIDRs={10.0.0.1/32,::/0}"],
            {"to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}, {"ipBlock": {"cidr": "::/0"}}]},
        ),
    ],
)
def test_the_operator_reaches_names_and_the_api_server(control_plane: Access, given: list[str], way: Object) -> None:
    policy = pick(render(control_plane, "--set", "networkPolicy.enabled=true", *given), "NetworkPolicy")
    dns = {"ports": [{"port": port, "protocol": protocol} for port in DNS_PORTS for protocol in ("UDP", "TCP")]}
    assert policy["spec"]["egress"] == [dns, way]


def test_the_chart_can_be_a_dependency(control_plane: Access) -> None:
    assert pick(render(control_plane, "--set", "global.registry=x"), "Deployment")


def test_the_definition_can_be_left_out_and_let_go(control_plane: Access) -> None:
    kept = pick(render(control_plane), "CustomResourceDefinition")
    assert kept["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    let_go = pick(render(control_plane, "--set", "crds.keep=false"), "CustomResourceDefinition")
    assert "annotations" not in let_go["metadata"]
    left_out = render(control_plane, "--set", "crds.enabled=false")
    assert "CustomResourceDefinition" not in {document["kind"] for document in left_out}


def test_the_definition_of_the_chart_is_that_of_the_manifests(control_plane: Access) -> None:
    rendered = pick(render(control_plane), "CustomResourceDefinition")
    assert rendered["spec"] == yaml.safe_load((ROOT / "manifests/crd.yaml").read_text())["spec"]


def test_dashboards_and_alerts_arrive_unchanged(control_plane: Access) -> None:
    objects = render(control_plane, *arguments("monitored"))
    rule = pick(objects, "PrometheusRule")
    assert rule["spec"] == yaml.safe_load((CHART / "files/alerts.yaml").read_text())
    boards = {
        name: json.loads(text)
        for document in objects
        if document["kind"] == "ConfigMap"
        for name, text in document["data"].items()
    }
    assert boards == {path.name: json.loads(path.read_text()) for path in (CHART / "dashboards").glob("*.json")}


def test_a_second_release_of_the_same_name_shares_nothing_with_the_first(control_plane: Access) -> None:
    def objects(namespace: str, *arguments: str) -> set[tuple[str, ...]]:
        made = render(control_plane, "--set", f"watchNamespaces={{{namespace}}}", *arguments, namespace=namespace)
        return {(each["kind"], each["metadata"].get("namespace", ""), each["metadata"]["name"]) for each in made}

    documented = re.search(r"a second release\s+takes\s+`--set ([^`]+)`", (ROOT / "docs/kubernetes.md").read_text())
    assert documented is not None
    assert objects("ops") & objects("other")
    assert objects("ops") & objects("other", "--set", documented[1]) == set()


def test_releases_in_one_namespace_elect_apart(control_plane: Access) -> None:
    leases = set()
    for release in ("a", "b"):
        objects = render(control_plane, "--set", "leaderElection=true", release=release, namespace="ops")
        container = pick(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]
        settings, _ = flags.parse(container["args"])
        leases.add((settings.lease_namespace, settings.lease_name))
    assert leases == {("ops", "a-empg"), ("ops", "b-empg")}


def test_an_upgrade_ends_the_old_operator_first_unless_they_elect_one(control_plane: Access) -> None:
    assert pick(render(control_plane), "Deployment")["spec"]["strategy"] == {"type": "Recreate"}
    elected = render(control_plane, "--set", "replicas=2,leaderElection=true")
    assert pick(elected, "Deployment")["spec"]["strategy"] == {"type": "RollingUpdate"}


def run_of_notes(said: str) -> EMPGRun:
    """The run that they tell to apply."""
    manifest = said.partition("<<EOF\n")[2].partition("\nEOF\n")[0]  # the shell takes no indented EOF
    return parse_run(json.dumps(yaml.safe_load(manifest)).encode(), "NOTES")


def test_the_notes_show_a_run_that_is_valid(control_plane: Access) -> None:
    said = notes(control_plane, "--set", "watchNamespaces={team-a}")
    assert "kubectl rollout status deployment/rel-empg --namespace ops" in said
    assert "kubectl apply --namespace team-a -f - <<EOF" in said
    run = run_of_notes(said)
    assert run.metadata.name == "demo"
    assert run.spec.sampler.image == f"empg/sampler:{__version__}-cpu"


def test_the_notes_show_a_run_with_the_image_that_the_values_speak_of(control_plane: Access) -> None:
    said = notes(control_plane, "--set", "runs.samplerImage.repository=mirror:5000/empg/sampler")
    assert run_of_notes(said).spec.sampler.image == f"mirror:5000/empg/sampler:{__version__}-cpu"
    assert "make images VARIANT=cpu" in said


def test_plain_manifests_are_those_of_the_chart(control_plane: Access) -> None:
    for path, text in rendered_files().items():
        assert path.read_text() == text, "run `make generate`"


@pytest.fixture
def readyz() -> Iterator[str]:
    """The URL of an operator that is ready."""

    class Ready(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/readyz" else 503)
            self.end_headers()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ready) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/readyz"
        server.shutdown()


def check_release(access: Access, namespace: str, directory: Path, readyz: str) -> subprocess.CompletedProcess[str]:
    """Run the program of `helm test` as it runs in its pod."""
    config = json.loads(access.kubectl("config", "view", "--raw", "-o", "json"))
    host, port = config["clusters"][0]["cluster"]["server"].removeprefix("https://").split(":")
    (directory / "token").write_text(access.kubectl("create", "token", "default", "--namespace", namespace).strip())
    (directory / "ca.crt").write_text(
        access.kubectl("get", "configmap", "kube-root-ca.crt", "-n", namespace, "-o", r"jsonpath={.data.ca\.crt}")
    )
    environment = {
        **os.environ,
        "KUBERNETES_SERVICE_HOST": host,
        "KUBERNETES_SERVICE_PORT": port,
        "ACCOUNT_DIR": str(directory),
        "TEST_SECONDS": "2",
    }
    return subprocess.run(
        [sys.executable, "-c", (CHART / "files/check_release.py").read_text(), readyz],
        env=environment, capture_output=True, text=True, timeout=30,
    )  # fmt: skip


def test_helm_test_finds_a_ready_operator_and_the_definition(
    empgruns: Access, namespace: str, tmp_path: Path, readyz: str
) -> None:
    done = check_release(empgruns, namespace, tmp_path, readyz)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "the operator is ready\nthe API server serves runs\n"


def test_helm_test_says_that_the_operator_is_not_ready(
    control_plane: Access, namespace: str, tmp_path: Path, readyz: str
) -> None:
    done = check_release(control_plane, namespace, tmp_path, readyz.replace("readyz", "elsewhere"))
    assert done.returncode == 1
    assert "the operator is not ready after 2 s" in done.stderr
