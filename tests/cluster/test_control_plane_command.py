"""`python -m hack.controlplane`: up, status and down by hand, with simulated nodes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from waiting import eventually

from hack.controlplane.access import Access

ROOT = Path(__file__).parents[2]
PROGRAMS = {"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok"}


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "hack.controlplane", *arguments]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120)


def programs(directory: Path) -> set[str]:
    """Names of the processes that were started for the directory."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):  # ended meanwhile
            continue
        if any(str(directory).encode() in word for word in words[1:]):
            found.add(Path(words[0].decode()).name)
    return found & PROGRAMS


@pytest.fixture
def directory(control_plane: Access, tmp_path: Path) -> Iterator[Path]:
    """A work directory; `control_plane` makes sure that the programs are there."""
    yield tmp_path / "plane"
    command("down", "--dir", str(tmp_path / "plane"))


def test_up_is_idempotent_and_down_leaves_nothing(control_plane: Access, directory: Path) -> None:
    where = ("--dir", str(directory))
    assert command("status", *where).returncode == 1
    first = command("up", *where, "--kwok", "2")
    assert first.returncode == 0, first.stderr
    assert first.stdout == f"export KUBECONFIG={directory}/admin.kubeconfig\n"
    assert programs(directory) == PROGRAMS
    server = (directory / "pid").read_text()
    assert command("up", *where).stdout == first.stdout
    assert (directory / "pid").read_text() == server

    def ended(name: str, exit_code: int) -> str:
        container = {"name": "work", "image": "example/work"}
        annotations = {"simulate.empg.dev/exit-code": str(exit_code), "simulate.empg.dev/runs-for": "1s"}
        pods = {"metadata": {"annotations": annotations}, "spec": {"restartPolicy": "Never", "containers": [container]}}
        spec = {"completions": 3, "parallelism": 3, "backoffLimit": 0, "template": pods}
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}
        cluster.kubectl("create", "-f", "-", input=json.dumps(job))
        path = "jsonpath={.status.conditions[?(@.status=='True')].type}"

        def state() -> set[str]:
            return {"Complete", "Failed"}.intersection(cluster.kubectl("get", "job", name, "-o", path).split())

        return eventually(state, "end of the job").pop()

    cluster = replace(control_plane, kubeconfig=directory / "admin.kubeconfig")
    assert ended("good", 0) == "Complete"
    assert ended("bad", 65) == "Failed"
    assert command("down", *where).returncode == 0
    assert not directory.exists()
    assert programs(directory) == set()


def test_no_program_outlives_the_server(directory: Path) -> None:
    assert command("up", "--dir", str(directory)).returncode == 0
    os.kill(int((directory / "pid").read_text()), signal.SIGKILL)
    eventually(lambda: not programs(directory), "end of all programs", seconds=5)
    assert command("status", "--dir", str(directory)).returncode == 1


def test_a_directory_of_others_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    command("down", "--dir", str(tmp_path))
    assert (tmp_path / "mine").read_text() == "precious"
    refused = command("up", "--dir", str(tmp_path))
    assert refused.returncode == 1
    assert f"{tmp_path} exists and is not of this command" in refused.stderr
