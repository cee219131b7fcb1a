"""What an edit of a run may change, on a real API server: every field of the spec."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from run_documents import MISSING, Runs, causes, changed, run

from empg.api.base import Spec, section_model
from empg.api.crd.definition import definition
from empg.api.run import RunSpec
from hack.controlplane.access import Access
from hack.rest import ApiError, Document, Rest

GSM8K = {"task.name": "gsm8k"}
CHAT = {**GSM8K, "task.chat": True}
FORK = {"model.name": MISSING, "model.fromRun": {"runDir": "first"}}
FORK_BY_NAME = {"model.name": MISSING, "model.fromRun": {"name": "first"}}

IMMUTABLE: dict[str, tuple[Document, Any, Any]] = {
    # field: what it needs beside it, a value, another value
    "model.name": ({}, "base", "other"),
    "model.revision": ({}, "main", "v2"),
    "model.fromRun": ({"model.name": MISSING}, {"runDir": "first"}, {"runDir": "second"}),
    "model.fromRun.name": (FORK_BY_NAME, "first", "second"),
    "model.fromRun.runDir": (FORK, "first", "second"),
    "model.fromRun.claimName": (FORK, "claim", "other"),
    "model.fromRun.policy": (FORK, 3, 4),
    "model.dtype": ({}, "float32", "bfloat16"),
    "model.trustRemoteCode": ({}, True, False),
    "task.name": ({}, "gsm8k", "math"),
    "task.source": (GSM8K, "rows.jsonl", "others.jsonl"),
    "task.config": (GSM8K, "main", "socratic"),
    "task.split": (GSM8K, "validation", "test"),
    "task.evalSource": (GSM8K, "held-out.jsonl", "others.jsonl"),
    "task.evalSplit": (GSM8K, "validation", "train"),
    "task.fields.prompt": (GSM8K, "problem", "text"),
    "task.fields.answer": (GSM8K, "solution", "gold"),
    "task.levels": ({}, [1, 2], [2, 1]),
    "task.template": (GSM8K, "Q: {{ prompt }}", "{{ prompt }} A:"),
    "task.chat": (GSM8K, True, False),
    "task.system": (CHAT, "Think first.", "Be brief."),
    "task.maxPromptTokens": ({}, 512, 256),
    "em.seed": ({}, 1, 2),
    "evaluation.prompts": ({}, 100, 50),
    "sampler.rollStrategy": ({}, "Alternate", "RollingUpdate"),
    "storage.claimName": ({}, "claim", "other"),
    "storage.storageClassName": ({}, "fast", "slow"),
    "storage.accessMode": ({}, "ReadWriteOnce", "ReadWriteMany"),
    "storage.adopt": ({}, True, False),
    "queueName": ({}, "team-a", "team-b"),
    "priorityClassName": ({}, "high", "low"),
    "managedBy": ({}, "example.com/controller", "empg.dev/operator"),
}

OBJECTIVE = {
    "objective.preset": "grpo",
    "objective.isCorrection": "truncated",
    "objective.filters": ["all-right", "all-wrong", "small-advantage"],
}
EDITS: dict[str, list[Any]] = {
    "task.grader.function": ["a.b:d"],
    "sampler.devices": [[1]],
    "sampler.stop": [["\n\n"]],
    "sampler.engineArgs": [{"enforce_eager": True, "x": None}],
    "sampler.maxUnavailable": [2],
    "sampler.maxSurge": ["10%"],
    "sampler.image": ["registry.example/sampler:2"],
    "sampler.accelerator": ["amd.com/gpu"],
    "sampler.podTemplate": [{"spec": {"tolerations": [{"operator": "Exists"}]}}],
    "learner.devices": [[3]],
    "learner.image": ["registry.example/learner:2"],
    "learner.accelerator": ["amd.com/gpu"],
    "learner.podTemplate": [{"metadata": {"labels": {"team": "a"}}}],
    "storage.size": ["1Ti"],
    "objective.filters": [["all-right"]],
}
"""Values for edits of fields whose type does not tell any."""
BESIDE: dict[str, Document] = {
    "task.grader.name": {"task.grader.function": MISSING},
    "em.promptsPerUnit": {"em.promptsPerIteration": 1},
    "sampler.topP": {"objective": {}},
    "sampler.topK": {"objective": {}},
}
"""What must be edited together with a field."""


@pytest.fixture(scope="module")
def runs(empgruns: Access) -> Iterator[Runs]:
    """In a namespace of this module."""
    namespace = f"test-{uuid.uuid4().hex[:8]}"
    empgruns.kubectl("create", "namespace", namespace)
    yield Runs(Rest(empgruns.kubeconfig, "test-crd-immutability"), namespace)
    empgruns.kubectl("delete", "namespace", namespace, "--wait=false")


def fields(model: type[Spec], path: str = "") -> Iterator[tuple[str, str]]:
    """Every field of the spec, also of a section that is immutable as a whole, with what an edit of it does."""
    for name, info in model.model_fields.items():
        place = f"{path}{info.alias or name}"
        below = section_model(info.annotation)
        if isinstance(info.json_schema_extra, dict):
            yield place, str(info.json_schema_extra["x-empg-change"])
        if below is not None:
            yield from fields(below, f"{place}.")


def refused(runs: Runs, document: Document, edit: Document, field: str) -> None:
    """The edit is refused because of the field, or of the section that is immutable as a whole with it."""
    with pytest.raises(ApiError) as refusal:
        runs.try_replace(changed(document, edit))
    assert refusal.value.code == 422
    guard = "model.fromRun" if field.startswith("model.fromRun") else field
    said = [text for place, text in causes(refusal.value) if place == f"spec.{guard}"]
    assert any(f"{guard} is immutable" in text or text == "Required value" for text in said), str(refusal.value)


def stored_value(document: Document, field: str) -> Any:
    """What the API server holds; None where the field is absent."""
    value: Any = document["spec"]
    for key in field.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


@pytest.mark.parametrize("field", IMMUTABLE)
def test_an_immutable_field_stays_what_it_is(runs: Runs, field: str) -> None:
    beside, value, other = IMMUTABLE[field]
    document = runs.create(run(f"with-{field.lower().replace('.', '-')}", {**beside, field: value}))
    for edit in (other, MISSING, None):
        refused(runs, document, {field: edit}, field)
    runs.try_replace(changed(document, {"em.iterations": 9}))


@pytest.mark.parametrize("field", [field for field in IMMUTABLE if field != "model.fromRun"])
def test_an_immutable_field_can_not_be_added_later(runs: Runs, field: str) -> None:
    beside, value, other = IMMUTABLE[field]
    document = runs.create(run(f"without-{field.lower().replace('.', '-')}", beside))
    runs.try_replace(document)
    refused(runs, document, {field: value if stored_value(document, field) != value else other}, field)


def test_the_base_model_can_not_become_a_run(runs: Runs) -> None:
    document = runs.create(run("by-name"))
    refused(runs, document, {"model.name": MISSING, "model.fromRun": {"runDir": "first"}}, "model.fromRun")


def test_every_immutable_field_was_tried() -> None:
    assert set(IMMUTABLE) == {field for field, change in fields(RunSpec) if change == "immutable"}


def test_storage_may_only_grow(runs: Runs) -> None:
    document = runs.create(run("storage", {"storage.size": "100Gi"}))
    for size in ("102400Mi", "101Gi", "1Ti"):
        runs.try_replace(changed(document, {"storage.size": size}))
    for size in ("99Gi", "102399Mi", "1Gi"):
        with pytest.raises(ApiError) as refusal:
            runs.try_replace(changed(document, {"storage.size": size}))
        ((place, text),) = causes(refusal.value)
        assert place == "spec.storage.size"
        assert "storage.size can only grow" in text


@pytest.fixture(scope="module")
def edited(runs: Runs) -> Document:
    """A run in which every field has an effect, as it is stored."""
    return runs.create(run("edited", OBJECTIVE | {"task.grader": {"name": "function", "function": "a.b:c"}}))


@pytest.mark.parametrize("field", [field for field, change in fields(RunSpec) if change != "immutable"])
def test_every_other_field_can_be_edited(runs: Runs, edited: Document, field: str) -> None:
    old = stored_value(edited, field)
    refusals = []
    for value in EDITS.get(field) or other_values(field, old):
        beside = BESIDE.get(field, {})
        try:
            stored = runs.try_replace(changed(edited, beside | {field: value}))
        except ApiError as error:
            refusals.append(str(error))
        else:
            assert stored_value(stored, field) == value != old
            return
    pytest.fail("\n".join(refusals))


def other_values(field: str, old: Any) -> Iterator[Any]:
    """Values of the field's type and within its bounds that differ from the old one."""
    schema: Document = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    for key in field.split("."):
        schema = schema["properties"][key]
    if schema.get("type") == "boolean":
        yield not old
    elif "enum" in schema:
        yield from (value for value in schema["enum"] if value != old)
    else:
        low, high = schema["minimum"], schema["maximum"]
        middle = (low + high) // 2 if schema["type"] == "integer" else (low + high) / 2
        yield from (value for value in (middle, high, low) if value != old)
