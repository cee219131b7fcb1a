"""Every rule of the definition on a real API server: it refuses, points to the field, and the remedy helps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from run_documents import Runs, causes, run

from empg.api.crd.definition import definition
from hack.controlplane.access import Access, CommandError
from hack.rest import ApiError, Rest

REPOSITORY = Path(__file__).parents[2]

EXAMPLES = sorted([*REPOSITORY.glob("examples/*/empgrun.yaml"), *REPOSITORY.glob("manifests/examples/*.yaml")])
REFUSALS = yaml.safe_load((REPOSITORY / "tests" / "data" / "crd_refusals.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def runs(empgruns: Access) -> Runs:
    return Runs(Rest(empgruns.kubeconfig, "test-crd-rules"), "default")


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case["message"])
def test_a_rule_refuses_and_its_remedy_helps(runs: Runs, case: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as refusal:
        runs.try_create(run("rules", case["wrong"]))
    assert refusal.value.code == 422
    ((place, text),) = causes(refusal.value)
    assert place == f"spec.{case['field']}"
    assert case["message"] in text
    runs.try_create(run("rules", case["wrong"] | case["remedy"]))


def test_every_rule_was_tried() -> None:
    def rules(schema: dict[str, Any]) -> list[str]:
        own = [rule["message"] for rule in schema.get("x-kubernetes-validations", []) if "oldSelf" not in rule["rule"]]
        return own + [message for below in schema.get("properties", {}).values() for message in rules(below)]

    schema = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    tried = tuple(case["message"] for case in REFUSALS)
    assert [message for message in rules(schema) if not message.startswith(tried)] == []


@pytest.mark.parametrize("name", ["a", "a" * 46, "run-7"])
def test_names_of_which_services_can_be_made_are_accepted(runs: Runs, name: str) -> None:
    assert runs.try_create(run(name))["metadata"]["name"] == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a" * 47, "metadata.name must have at most 46 characters"),
        ("7b-run", "metadata.name must be lower-case letters, digits and '-'"),
        ("a.b", "metadata.name must be lower-case letters, digits and '-'"),
    ],
)
def test_other_names_are_refused(runs: Runs, name: str, message: str) -> None:
    with pytest.raises(ApiError) as refusal:
        runs.try_create(run(name))
    ((place, text),) = causes(refusal.value)
    assert place == "metadata.name"
    assert message in text


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_examples_are_accepted(empgruns: Access, path: Path) -> None:
    text = "---\n".join(
        yaml.safe_dump(document)
        for document in yaml.safe_load_all(path.read_text())
        if document and document["kind"] == "EMPGRun"
    )
    empgruns.kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", input=text)


def test_kubectl_writes_whole_numbers_as_integers(empgruns: Access) -> None:
    text = yaml.safe_dump(run("numbers", {"em.iterations": 3.0, "em.promptsPerUnit": 1.6e1}))
    created = yaml.safe_load(empgruns.kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", input=text))
    assert (created["spec"]["em"]["iterations"], created["spec"]["em"]["promptsPerUnit"]) == (3, 16)


def test_an_unknown_key_is_refused_by_name(empgruns: Access) -> None:
    with pytest.raises(CommandError, match=r'unknown field "spec\.em\.sede"'):
        empgruns.kubectl("create", "--dry-run=server", "-f", "-", input=yaml.safe_dump(run("unknown", {"em.sede": 1})))
