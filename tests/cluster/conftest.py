"""One real control plane for all tests of this directory, and a fresh namespace for each test."""

from __future__ import annotations

import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from fault_proxy import FaultProxy
from operator_process import OperatorProcess
from simulated_node import SimulatedNode
from stage import Stage
from waiting import eventually

from hack import definitions, tools
from hack.controlplane import plane
from hack.controlplane.access import Access, CommandError
from hack.rest import Rest
from hack.volumes import LocalVolumes

ACCOUNT_SECONDS = 30.0
SERVED_SECONDS = 60.0
MONITORED = ("podmonitors", "prometheusrules", "servicemonitors")
DEFINITION = Path(__file__).parents[2] / "manifests" / "crd.yaml"


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Access]:
    """An administrator's access to the cluster of `$EMPG_TEST_KUBECONFIG`, or to a control plane without nodes.

    Without the programs of a control plane the tests are skipped; they fail where `CI=true`.
    """
    existing = os.environ.get("EMPG_TEST_KUBECONFIG")
    if existing:
        copy = tmp_path_factory.mktemp("kubeconfig") / "kubeconfig"  # accesses of other users are written beside it
        shutil.copy(existing, copy)
        yield Access(copy, _installed("kubectl"), _installed("helm"))
        return
    try:
        kubectl, helm = tools.path("kubectl"), tools.path("helm")
        running = plane.start(tmp_path_factory.mktemp("control-plane"))
    except tools.ToolError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no control plane: {error}")
    with closing(running):
        yield Access(running.kubeconfig, kubectl, helm, running.audit_log)


@pytest.fixture
def namespace(control_plane: Access) -> Iterator[str]:
    """A namespace of this test alone, in which pods can be created; it goes in the background afterwards."""
    with _namespace(control_plane) as name:
        yield name


@contextmanager
def _namespace(control_plane: Access) -> Iterator[str]:
    name = f"test-{uuid.uuid4().hex[:8]}"
    control_plane.kubectl("create", "namespace", name)
    deadline = time.monotonic() + ACCOUNT_SECONDS
    while not control_plane.kubectl("get", "serviceaccounts", "-n", name, "-o", "name"):
        assert time.monotonic() < deadline, f"no service account appeared in namespace {name}"
        time.sleep(0.02)
    yield name
    control_plane.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def node(control_plane: Access, namespace: str) -> Iterator[SimulatedNode]:
    """A node of this test alone, on which every pod runs unless the test says otherwise."""
    with SimulatedNode(control_plane.kubeconfig, f"node-of-{namespace}") as node:
        yield node


@pytest.fixture
def volumes(control_plane: Access, tmp_path: Path) -> Iterator[None]:
    """Claims of the storage class `local` are bound as long as the test lasts."""
    provider = LocalVolumes(control_plane.kubeconfig, tmp_path / "volumes")
    provider.create_class()
    thread = threading.Thread(target=provider.serve)
    thread.start()
    yield
    provider.end()
    thread.join()


def _installed(program: str) -> Path:
    found = shutil.which(program)
    if found is None:
        pytest.fail(f"EMPG_TEST_KUBECONFIG is set, but {program} is not in PATH; install it")
    return Path(found)


@pytest.fixture(scope="session")
def empgruns(control_plane: Access) -> Access:
    """The control plane once it serves EMPGRuns, by the committed definition."""
    control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(DEFINITION))
    # Not `kubectl wait`, which fails on a definition that has no conditions yet.
    eventually(lambda: _serves(control_plane, "empgruns"), "API of EMPGRuns", SERVED_SECONDS)
    return control_plane


@pytest.fixture
def monitoring(control_plane: Access) -> Iterator[None]:
    """The cluster has the kinds of the Prometheus operator that we make, as long as the test lasts."""
    try:
        files = [definitions.monitoring(plural) for plural in MONITORED]
    except tools.ToolError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"no definitions of the Prometheus operator: {error}")
    kinds = [f"crd/{plural}.monitoring.coreos.com" for plural in MONITORED]
    control_plane.kubectl("apply", "--server-side", *(f"--filename={file}" for file in files))
    control_plane.kubectl("wait", "--for=condition=Established", *kinds, "--timeout=30s")
    yield
    try:
        control_plane.kubectl("delete", *kinds, "--ignore-not-found", "--timeout=20s")
    except CommandError:
        # The API server may miss that a definition is to go; it looks again at its next change, or after minutes.
        left = control_plane.kubectl("get", *kinds, "--ignore-not-found", "-o", "name").split()
        control_plane.kubectl("annotate", *left, "empg.dev/test=ended")
        control_plane.kubectl("delete", *kinds, "--ignore-not-found", "--timeout=60s")


@pytest.fixture
def operator(empgruns: Access, namespace: str, tmp_path: Path) -> Iterator[OperatorProcess]:
    """The operator, which looks after the namespace of this test alone."""
    process = OperatorProcess(empgruns.kubeconfig, tmp_path / "operator.log", f"--namespaces={namespace}")
    with closing(process):
        process.start()
        yield process


@pytest.fixture(scope="module")
def stage(empgruns: Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A namespace, a node and an operator for all tests of a module, which make runs of different names there.

    Such a module can't use `node` or `operator` too: pods would run on either node.
    """
    log = tmp_path_factory.mktemp("stage") / "operator.log"
    with _namespace(empgruns) as name, SimulatedNode(empgruns.kubeconfig, f"node-of-{name}", pods="500") as node:
        process = OperatorProcess(empgruns.kubeconfig, log, f"--namespaces={name}", "--resync-seconds=5")
        with closing(process):
            process.start()
            yield Stage(empgruns, name, node, process, Rest(empgruns.kubeconfig, "test"))


def _serves(control_plane: Access, resource: str) -> bool:
    try:
        control_plane.kubectl("get", resource)
    except CommandError:
        return False
    return True


@pytest.fixture
def proxy(empgruns: Access, tmp_path: Path) -> Iterator[FaultProxy]:
    """What stands before the API server, and lets requests fail as a test wishes."""
    with FaultProxy(empgruns.kubeconfig, tmp_path) as proxy:
        yield proxy


@pytest.fixture
def mortal(proxy: FaultProxy, namespace: str, tmp_path: Path) -> Iterator[OperatorProcess]:
    """The operator, which reaches the API server through the proxy alone; not started."""
    process = OperatorProcess(proxy.kubeconfig, tmp_path / "operator.log", f"--namespaces={namespace}")
    with closing(process):
        yield process
