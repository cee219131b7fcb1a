"""The commands that the README gives for Kubernetes, on a cluster of their own."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from operator_process import OperatorProcess
from simulated_node import SimulatedNode
from waiting import eventually

from hack import tools
from hack.controlplane import plane
from hack.controlplane.access import Access
from hack.rest import Rest
from hack.volumes import LocalVolumes

ROOT = Path(__file__).parents[2]
SECONDS = 60.0
LEARNER = "empg.dev/run=demo,empg.dev/role=learner"
SAMPLERS = "empg.dev/run=demo,empg.dev/role=sampler"
PROGRESS = {
    "attempt": 1,
    "iteration": 100,
    "iterations": 100,
    "phase": "done",
    "policyVersion": 100,
    "reward": 0.902344,
    "evaluation": 0.905,
    "updated": "2026-01-01T00:00:00Z",
}


@pytest.fixture(scope="module")
def fresh(control_plane: Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Access]:
    """A cluster in which nothing is installed, with a default storage class."""
    directory = tmp_path_factory.mktemp("fresh")
    with closing(plane.start(directory)) as running, ExitStack() as stack:
        access = Access(running.kubeconfig, control_plane.kubectl_program, control_plane.helm_program)
        provider = LocalVolumes(running.kubeconfig, directory / "volumes")
        provider.create_class(default=True)
        thread = threading.Thread(target=provider.serve)
        thread.start()
        stack.callback(thread.join)
        stack.callback(provider.end)
        yield access


def commands() -> list[str]:
    """Lines after `$` in the README."""
    blocks = re.findall(r"^```console\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


def shell(access: Access, command: str) -> str:
    programs = f"{tools.path('kubectl').parent}:{tools.path('helm').parent}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        env={**os.environ, "KUBECONFIG": str(access.kubeconfig), "PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


def train(access: Access, node: SimulatedNode) -> None:
    """Do as the programs in the pods would."""
    [learner] = node.ready("default", LEARNER, seconds=SECONDS)
    node.ready("default", SAMPLERS, seconds=SECONDS)
    path = "/apis/empg.dev/v1alpha1/namespaces/default/empgruns/demo/status"
    body = {"apiVersion": "empg.dev/v1alpha1", "kind": "EMPGRun", "status": {"progress": PROGRESS}}
    Rest(access.kubeconfig, "test").patch(path, body, "apply", fieldManager="empg-learner", force="true")
    node.finish(learner)


def test_the_commands_of_the_readme_take_a_run_to_its_end(fresh: Access, tmp_path: Path) -> None:
    """No kubelet runs here: a simulated node stands for the pods, and the operator runs beside, by its own account."""
    install, apply, wait, get = commands()
    with SimulatedNode(fresh.kubeconfig) as node, ExitStack() as stack:
        shell(fresh, install)
        account = fresh.service_account("empg-system", "empg")
        operator = stack.enter_context(closing(OperatorProcess(account.kubeconfig, tmp_path / "operator.log")))
        operator.start()
        shell(fresh, apply)
        training = threading.Thread(target=train, args=(fresh, node))
        training.start()
        shell(fresh, wait)
        training.join()
        eventually(lambda: "0/0" in shell(fresh, get), "end of the samplers", SECONDS)
        printed = [line.split() for line in shell(fresh, get).splitlines()]
    example = re.search(r"^NAME .*\n^demo .*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert example is not None
    shown = [line.split() for line in example[0].splitlines()]
    assert printed[0] == shown[0]
    assert printed[1][:-1] == shown[1][:-1]  # but for its age
