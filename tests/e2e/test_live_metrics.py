"""Prometheus scrapes what the monitors select, and has data for every panel and alert."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml
from applied_run import START_SECONDS, AppliedRun, demo
from live_cluster import ROOT, LiveCluster, until
from monitors import Way, pod_job, pod_targets, service_job, service_targets

from empg.api.run import EMPGRun
from empg_operator.builders.monitor import pod_monitor
from empg_operator.settings import Settings
from hack.dashboards.asked import expressions, selectors
from hack.rest import Document

ACCOUNT = "prometheus"
RELEASE = "empg-system"
RIGHTS = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "Role",
    "metadata": {"name": ACCOUNT},
    "rules": [
        {"apiGroups": [""], "resources": ["pods/proxy"], "verbs": ["get"]},
    ],
}
DATA_SECONDS = 120.0


class Prometheus:
    """A server of Prometheus that runs."""

    def __init__(self, port: int) -> None:
        self._address = f"http://127.0.0.1:{port}"
        self._pool = urllib3.PoolManager(timeout=10, retries=False)

    def get(self, path: str, **query: str) -> Any:
        """An answer of its API."""
        answer = self._pool.request("GET", f"{self._address}/api/v1/{path}", fields=query)
        assert answer.status == 200, answer.data
        return answer.json()["data"]

    def ready(self) -> bool:
        try:
            return self._pool.request("GET", f"{self._address}/-/ready").status == 200
        except urllib3.exceptions.HTTPError:
            return False


@pytest.fixture(scope="module")
def run(release: LiveCluster, namespace: str) -> AppliedRun:
    """A run that trains, and evaluates every policy."""
    changes = {"em": {"iterations": 2000}, "evaluation": {"every": 1, "prompts": 8}}
    run = AppliedRun(release, namespace, demo("watched", **changes))
    run.until_learned(1)
    return run


@pytest.fixture(scope="module")
def prometheus(run: AppliedRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus with the monitors of the run and of the operator."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("no prometheus in PATH (Debian: apt-get install prometheus)")
    directory = tmp_path_factory.mktemp("prometheus")
    config = directory / "prometheus.yml"
    try:
        config.write_text(yaml.safe_dump({"scrape_configs": _jobs(run, directory)}))
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        line = [program, f"--config.file={config}", f"--storage.tsdb.path={directory / 'data'}"]
        with open(directory / "log", "wb") as log:
            process = subprocess.Popen([*line, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
        try:
            server = Prometheus(port)
            until(server.ready, "Prometheus", 60)
            yield server
        finally:
            process.terminate()
            process.wait(30)
    finally:
        for kind in ("role", "rolebinding"):
            run.cluster.access.kubectl("delete", kind, ACCOUNT, "-n", RELEASE, "--ignore-not-found")


def _jobs(run: AppliedRun, directory: Path) -> list[dict[str, Any]]:
    """Scrape jobs of the monitors: the chart's, and the one that the operator makes where there is that kind."""
    access = run.cluster.access
    account = f"{run.namespace}:{ACCOUNT}"
    run.kubectl("create", "serviceaccount", ACCOUNT)
    for namespace in (run.namespace, RELEASE):
        access.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps(RIGHTS))
        binding = ("create", "rolebinding", ACCOUNT, f"--role={ACCOUNT}", f"--serviceaccount={account}")
        access.kubectl(*binding, "-n", namespace)
    token = run.kubectl("create", "token", ACCOUNT, "--duration=1h").strip()
    view = json.loads(access.kubectl("config", "view", "--raw", "--minify", "--flatten", "--output=json"))
    cluster = view["clusters"][0]["cluster"]
    authority = directory / "ca.crt"
    authority.write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
    way = Way(cluster["server"], token, authority)
    monitor = pod_monitor(EMPGRun.model_validate(run.document()), Settings())
    assert monitor is not None
    chart = access.helm(
        *("template", "empg", str(ROOT / "charts/empg"), "--namespace", RELEASE),
        *("--set", "metrics.serviceMonitor.enabled=true", "--show-only", "templates/servicemonitor.yaml"),
        "--kube-version=1.31",
    )
    of_run, of_release = directory / "run.json", directory / "release.json"
    of_run.write_text(json.dumps(pod_targets(_objects(run, run.namespace, "pods"))))
    services, pods = (_objects(run, RELEASE, kind) for kind in ("services", "pods"))
    of_release.write_text(json.dumps(service_targets(services, pods)))
    return [pod_job(monitor, of_run, way), service_job(yaml.safe_load(chart), of_release, way)]


def _objects(run: AppliedRun, namespace: str, kind: str) -> list[Document]:
    found: list[Document] = run.cluster.rest.get(f"/api/v1/namespaces/{namespace}/{kind}")["items"]
    return found


def test_it_scrapes_operator_sampler_and_learner(run: AppliedRun, prometheus: Prometheus) -> None:
    def up() -> set[str]:
        targets = prometheus.get("targets", state="active")["activeTargets"]
        print([(target["labels"].get("pod"), target["health"], target["lastError"]) for target in targets])
        return {target["labels"]["pod"] for target in targets if target["health"] == "up"}

    pods = {*run.running("sampler"), *run.running("learner")}
    assert len(pods) == 2
    operator = (
        "get",
        "pods",
        "-n",
        RELEASE,
        "-l",
        "app.kubernetes.io/name=empg",
        "-o",
        "jsonpath={.items[*].metadata.name}",
    )
    pods |= set(run.cluster.access.kubectl(*operator).split())
    until(lambda: up() == pods, f"targets {sorted(pods)}", START_SECONDS)


def test_every_panel_and_alert_has_data(run: AppliedRun, prometheus: Prometheus) -> None:
    """Series by name, and of the run where that is asked for; values of other labels depend on what happens."""

    def without_data() -> list[str]:
        return [selector for selector in sorted(_asked(run)) if not prometheus.get("query", query=selector)["result"]]

    try:
        until(lambda: not without_data(), "data", DATA_SECONDS)
    finally:
        print(f"without data: {without_data()} of {len(_asked(run))}")


def _asked(run: AppliedRun) -> set[str]:
    """Selectors of all series that are asked for."""
    ours = f'{{namespace="{run.namespace}",empg_dev_run="{run.name}"}}'
    found = set()
    for _, expression in expressions():
        for selector in selectors(expression):
            of_run = any(matcher.value == "$run" for matcher in selector.matchers.matchers)
            found.add(f"{selector.name}{ours if of_run else ''}")
    return found
