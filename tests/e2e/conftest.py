"""A real cluster with the project's own images and the chart installed, and a namespace for each module.

Collected only when asked for: `make e2e`, or `pytest tests/e2e/test_….py`. Variables of the environment:

`EMPG_E2E_DIR`
    Work directory of a cluster of `hack.cluster` that is used, and started first if it does not run. It is left
    running with its images and the release, for the next session, which renews both where the code has changed:
    `python -m hack.cluster down --dir …` ends it.
`EMPG_E2E_KUBECONFIG`
    A cluster that is there. Its nodes must find the images, and it needs a default storage class with ReadWriteMany.
`EMPG_E2E_IMAGES`
    With it: what the names of the images begin with, such as `registry.example/empg`; their tags are the version,
    the sampler's with `-cpu`.

Without any of them a cluster is made for the session, images are built for it, and both go afterwards; this needs root.

A module that trains takes `namespace`, and makes an `AppliedRun` in it, best by a fixture of the module that several
tests share in their order: starting the pods of a run takes most of a minute.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_cluster import ROOT, LiveCluster, until

from hack import tools
from hack.controlplane.access import Access

RELEASE = "empg-system"
BUILT_FROM = ("core", "operator", "sampler", "trainer", "docker", "examples/demo", "pyproject.toml")
NAMES = ("operator", "trainer", "sampler")
BUILD_SECONDS = 5400
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveCluster]:
    """An administrator's access to a cluster whose nodes have the images."""
    existing, kept = os.environ.get("EMPG_E2E_KUBECONFIG"), os.environ.get("EMPG_E2E_DIR")
    if existing:
        copy = tmp_path_factory.mktemp("kubeconfig") / "kubeconfig"
        shutil.copy(existing, copy)
        access = Access(copy, _installed("kubectl"), _installed("helm"))
        yield LiveCluster(access, os.environ.get("EMPG_E2E_IMAGES", "empg"), None, tmp_path_factory.mktemp("copies"))
        return
    directory = Path(kept or tmp_path_factory.mktemp("e2e") / "cluster").resolve()
    where = ("--dir", str(directory))
    try:
        _command("up", *where)
        access = Access(directory / "admin.kubeconfig", tools.path("kubectl"), tools.path("helm"))
        code, loaded = _code(), directory / "images-of"
        if not (loaded.exists() and loaded.read_text() == code):
            for name in NAMES:
                archive = _command("build", name).split()[0]
                _command("load", archive, *where)
                Path(archive).unlink()  # gigabytes
            access.kubectl("delete", "pods", "--namespace", RELEASE, "--all")  # of older images, if there is a release
            loaded.write_text(code)
        yield LiveCluster(access, "empg", directory, tmp_path_factory.mktemp("copies"))
    finally:
        if not kept:
            _command("down", *where)


@pytest.fixture(scope="session")
def release(cluster: LiveCluster) -> LiveCluster:
    """The cluster with the release `empg` in namespace `empg-system`, installed as a user does it.

    A test that changes the release puts it back.
    """
    access = cluster.access
    _create_namespace(access, RELEASE)
    images = [] if cluster.images == "empg" else _image_values(cluster.images)
    where = ("empg", str(ROOT / "charts/empg"), "--namespace", RELEASE)
    access.helm("upgrade", "--install", *where, *images)
    access.kubectl("rollout", "status", "deployment/empg", "--namespace", RELEASE, "--timeout=100s")
    return cluster


@pytest.fixture(scope="module")
def namespace(release: LiveCluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of this module alone that enforces the Pod Security level `restricted`; all in it goes with it."""
    module = Path(request.node.name).stem.removeprefix("test_").replace("_", "-")
    name = f"{module}-{uuid.uuid4().hex[:4]}"
    access = release.access
    _create_namespace(access, name)
    yield name
    if request.session.testsfailed:
        _record(access, name)
    access.kubectl("delete", "namespace", name, "--wait=false")
    # The next module needs the processors.
    until(lambda: not access.kubectl("get", "pods", "-n", name, "-o", "name"), f"end of the pods in {name}", 120)


def _create_namespace(access: Access, name: str) -> None:
    about = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}}
    access.kubectl("apply", "--server-side", "-f", "-", input=json.dumps(about))


def _record(access: Access, namespace: str) -> None:
    """Print what a user would look at, for whoever reads the report of a failed test."""
    print(access.kubectl("describe", "empgruns", "-n", namespace))
    print(access.kubectl("get", "pods,jobs,events", "-n", namespace, "-o", "wide"))


def _command(*arguments: str) -> str:
    line = [sys.executable, "-m", "hack.cluster", *arguments]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=BUILD_SECONDS)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _code() -> str:
    """Names what images are built from: the newest commit of it, and what was changed since."""

    def git(*arguments: str) -> bytes:
        line = ["git", "-C", str(ROOT), *arguments, "--", *BUILT_FROM]
        return subprocess.run(line, check=True, capture_output=True, timeout=60).stdout

    return f"{git('log', '-1', '--format=%H').decode().strip()} {hashlib.sha256(git('diff', 'HEAD')).hexdigest()}"


def _image_values(prefix: str) -> list[str]:
    values = {"image": "operator", "runs.samplerImage": "sampler", "runs.trainerImage": "trainer"}
    return [part for key, name in values.items() for part in ("--set", f"{key}.repository={prefix}/{name}")]


def _installed(program: str) -> Path:
    found = shutil.which(program)
    if found is None:
        pytest.fail(f"EMPG_E2E_KUBECONFIG is set, but {program} is not in PATH; install it")
    return Path(found)
