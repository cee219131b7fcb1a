"""Plain manifests and examples, as a user applies them."""

from __future__ import annotations

from pathlib import Path

import pytest
from chart import ROOT

from hack.controlplane.access import Access, CommandError

EXAMPLES = sorted((ROOT / "manifests/examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_the_api_server_takes_an_example(empgruns: Access, namespace: str, path: Path) -> None:
    said = empgruns.kubectl(
        "create", "--dry-run=server", "--validate=strict", "-n", namespace, "-f", str(path), "-o", "name"
    )
    assert said.startswith("empgrun.empg.dev/")


def test_the_api_server_refuses_an_example_with_a_misspelled_field(empgruns: Access, namespace: str) -> None:
    text = EXAMPLES[0].read_text().replace("promptsPerIteration", "promptsPerIterations")
    with pytest.raises(CommandError, match=r'unknown field "spec\.em\.promptsPerIterations"'):
        empgruns.kubectl("create", "--dry-run=server", "--validate=strict", "-n", namespace, "-f", "-", input=text)


def test_the_reader_is_taken_where_pods_are_restricted(control_plane: Access, namespace: str) -> None:
    control_plane.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    said = control_plane.kubectl(
        "create", "--dry-run=server", "-n", namespace, "-f", str(ROOT / "manifests/reader.yaml")
    )
    assert said.startswith("pod/reader created")


def test_the_operator_can_be_applied_without_helm_and_again(control_plane: Access) -> None:
    command = ("apply", "--server-side", "--force-conflicts", "-k", str(ROOT / "manifests"))
    first = control_plane.kubectl(*command)
    assert "deployment.apps/empg serverside-applied" in first
    generation = ("get", "deployment", "empg", "-n", "empg-system", "-o", "jsonpath={.metadata.generation} {..image}")
    before = control_plane.kubectl(*generation)
    try:
        assert before.endswith(" empg/operator:0.1.0")
        control_plane.kubectl(*command)
        assert control_plane.kubectl(*generation) == before
    finally:
        control_plane.kubectl("delete", "-f", str(ROOT / "manifests/operator.yaml"), "--wait=false")
