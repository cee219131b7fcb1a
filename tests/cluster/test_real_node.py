"""On the real node, pods get what the operator's pods rely on: names, shared storage, signals, security contexts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import eventually

from hack import tools
from hack.cluster import archive, namespaces, runtime
from hack.controlplane.access import Access

ROOT = Path(__file__).parents[2]
IMAGE = "localhost/busybox:dev"
APPLETS = ("sh", "nslookup", "nc", "cat", "id", "sleep", "touch", "ls")
RESTRICTED = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "runAsGroup": 1000,
    "fsGroup": 2000,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONFINED = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}

pytestmark = pytest.mark.slow


def command(*arguments: str) -> str:
    line = [sys.executable, "-m", "hack.cluster", *arguments]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    return done.stdout


def mentions(process: Path, directory: Path) -> bool:
    """Whether the command line of a process, if it still runs, names a directory."""
    try:
        return str(directory).encode() in process.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Access]:
    """A cluster of one node with the image; skipped where a node can't run."""
    if os.geteuid() != 0:
        pytest.skip("a node needs root")
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("these tests need more packages: apt-get install --no-install-recommends busybox-static")
    try:
        runtime.require_packages()
    except tools.ToolError as error:
        pytest.skip(str(error))
    directory = tmp_path_factory.mktemp("node")
    image = directory / "busybox.tar"
    archive.write(image, IMAGE, {f"bin/{applet}": Path(busybox) for applet in APPLETS}, ["/bin/sh"])
    where = ("--dir", str(directory / "cluster"))
    try:
        told = command("up", *where)
        started = (directory / "cluster/pid").read_text()
        assert command("up", *where) == told
        assert (directory / "cluster/pid").read_text() == started
        command("load", str(image), *where)
        kubeconfig = directory / "cluster" / "admin.kubeconfig"
        yield Access(kubeconfig, tools.path("kubectl"), tools.path("helm"))
    finally:
        command("down", *where)
    assert not (directory / "cluster").exists()
    name = namespaces.name_of(directory / "cluster")
    assert not list(Path("/sys/fs/cgroup").glob(f"**/{name}"))
    assert name not in namespaces.run("ip", "link")
    assert str(directory / "cluster") not in Path("/proc/self/mountinfo").read_text()
    assert [process for process in Path("/proc").glob("[0-9]*/cmdline") if mentions(process, directory)] == []


@pytest.fixture
def place(cluster: Access, request: pytest.FixtureRequest) -> str:
    """A namespace that enforces the restricted standard."""
    name = request.node.name.replace("_", "-")[:60].strip("-")
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    return name


def pods(script: str, **changes: Any) -> dict[str, Any]:
    """A pod template that runs the script; `changes` are to its spec, `mounts` to its container."""
    container = {
        "name": "work",
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", script],
        "securityContext": CONFINED,
        "volumeMounts": changes.pop("mounts", []),
    }
    spec = {"restartPolicy": "Never", "securityContext": RESTRICTED, "containers": [container], **changes}
    return {"metadata": {"labels": {"app": "work"}}, "spec": spec}


def create(cluster: Access, place: str, kind: str, name: str, version: str = "v1", **fields: Any) -> None:
    document = {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **fields}
    cluster.kubectl("create", "-n", place, "-f", "-", input=json.dumps(document))


def run_job(cluster: Access, place: str, template: dict[str, Any], completions: int = 1) -> list[str]:
    """Run an Indexed Job `work` to its end; the logs of its pods."""
    counts = {"completions": completions, "parallelism": completions, "completionMode": "Indexed", "backoffLimit": 0}
    create(cluster, place, "Job", "work", "batch/v1", spec={**counts, "template": template})
    path = "jsonpath={.status.conditions[?(@.status=='True')].type}"

    def ended() -> set[str]:
        return {"Complete", "Failed"}.intersection(
            cluster.kubectl("get", "job", "work", "-n", place, "-o", path).split()
        )

    how = eventually(ended, "end of the job", seconds=90)
    names = cluster.kubectl("get", "pods", "-n", place, "-o", "name").split()
    logs = [cluster.kubectl("logs", "-n", place, name) for name in names]
    assert how == {"Complete"}, logs
    return logs


def test_pods_of_a_job_find_each_other_by_name(cluster: Access, place: str) -> None:
    service = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {"app": "work"}}
    create(cluster, place, "Service", "gang", spec=service)
    name = f"work-0.gang.{place}.svc.cluster.local"
    script = f"until nslookup {name}; do sleep 0.5; done; echo found"
    logs = run_job(cluster, place, pods(script, subdomain="gang"), completions=2)
    assert len(logs) == 2
    assert all("found" in log for log in logs)


def test_pods_reach_the_api_server_and_services(cluster: Access, place: str) -> None:
    # by address: the resolver of a static program knows numbers only, and names have a test of their own
    script = "until echo | nc -w 5 $KUBERNETES_SERVICE_HOST 443; do sleep 0.5; done; echo reached"
    assert "reached" in run_job(cluster, place, pods(script))[0]


def test_pods_share_a_claim_that_their_group_may_write(cluster: Access, place: str) -> None:
    size = {"requests": {"storage": "1Gi"}}
    claim = {"accessModes": ["ReadWriteMany"], "storageClassName": "local", "resources": size}
    create(cluster, place, "PersistentVolumeClaim", "runs", spec=claim)
    script = "id -G; touch /runs/$JOB_COMPLETION_INDEX; until ls /runs/0 /runs/1; do sleep 0.2; done"
    volume = {"name": "runs", "persistentVolumeClaim": {"claimName": "runs"}}
    template = pods(script, volumes=[volume], mounts=[{"name": "runs", "mountPath": "/runs"}])
    for log in run_job(cluster, place, template, completions=2):
        assert "1000 2000" in log.splitlines()


def test_the_root_file_system_is_read_only(cluster: Access, place: str) -> None:
    assert "Read-only file system" in run_job(cluster, place, pods("touch /a || true"))[0]


def test_a_process_gets_sigterm_and_its_exit_code_is_told(cluster: Access, place: str) -> None:
    script = "trap 'echo told; exit 75' TERM; echo up; while true; do sleep 0.1; done"
    spec = {"completions": 1, "backoffLimit": 0, "template": pods(script, terminationGracePeriodSeconds=20)}
    create(cluster, place, "Job", "work", "batch/v1", spec=spec)
    # a finalizer keeps the pod to be looked at
    pod = eventually(lambda: cluster.kubectl("get", "pods", "-n", place, "-o", "name").strip(), "pod")
    keep = {"metadata": {"finalizers": ["empg.dev/test"]}}
    cluster.kubectl("patch", pod, "-n", place, "-p", json.dumps(keep))
    eventually(lambda: "up" in logs(cluster, place, pod), "output of the process")
    cluster.kubectl("delete", pod, "-n", place, "--wait=false")

    def code() -> str:
        path = "jsonpath={.status.containerStatuses[0].state.terminated.exitCode}"
        return cluster.kubectl("get", pod, "-n", place, "-o", path)

    assert eventually(code, "exit code") == "75"
    cluster.kubectl("patch", pod, "-n", place, "--type=merge", "-p", '{"metadata": {"finalizers": null}}')


def logs(cluster: Access, place: str, pod: str) -> str:
    phase = cluster.kubectl("get", pod, "-n", place, "-o", "jsonpath={.status.phase}")
    return cluster.kubectl("logs", "-n", place, pod) if phase == "Running" else ""
