"""The CustomResourceDefinition: it is the committed one, structural and bounded, and has every rule of the models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic.fields import FieldInfo

from empg.api.base import Spec, section_model
from empg.api.crd.definition import definition, definition_yaml
from empg.api.run import RunSpec
from empg.cli.main import main
from empg.exit_codes import OK

Schema = dict[str, Any]
COMMITTED = Path(__file__).parents[2] / "manifests" / "crd.yaml"
NUMBER = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
COMMON = {"description", "type", "default", "nullable", "enum", "x-kubernetes-validations"}
ALLOWED = {
    "string": COMMON | {"format", "minLength", "maxLength", "pattern"},
    "integer": COMMON | NUMBER,
    "number": COMMON | NUMBER,
    "boolean": COMMON,
    "array": COMMON | {"items", "maxItems", "x-kubernetes-list-type", "x-kubernetes-list-map-keys"},
    "object": COMMON
    | {"x-kubernetes-map-type", "properties", "required", "maxProperties", "x-kubernetes-preserve-unknown-fields"},
    None: COMMON | {"x-kubernetes-int-or-string", "maxLength"},
}


def root() -> Schema:
    (version,) = definition()["spec"]["versions"]
    schema: Schema = version["schema"]["openAPIV3Schema"]
    return schema


def nodes(schema: Schema, path: str) -> Iterator[tuple[str, Schema]]:
    """Every schema below one, itself included, with its path."""
    yield path, schema
    for key, value in schema.get("properties", {}).items():
        yield from nodes(value, f"{path}.{key}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")


def parts() -> list[tuple[str, Schema]]:
    """Every schema of spec and status."""
    return [node for part in ("spec", "status") for node in nodes(root()["properties"][part], part)]


def infos(model: type[Spec], path: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every field of the spec, sections and what is in them alike."""
    for name, info in model.model_fields.items():
        place = f"{path}.{info.alias or name}"
        yield place, info
        below = section_model(info.annotation)
        if below is not None:
            yield from infos(below, place)


def leaves() -> dict[str, str]:
    """Every field of the spec that is edited as a whole, with what an edit of it does."""
    changes = {
        path: str(info.json_schema_extra["x-empg-change"])
        for path, info in infos(RunSpec)
        if isinstance(info.json_schema_extra, dict)
    }
    return {path: change for path, change in changes.items() if path.rpartition(".")[0] not in changes}


def test_the_committed_definition_is_the_generated_one() -> None:
    assert COMMITTED.read_text(encoding="utf-8") == definition_yaml(), "run: make generate"


def test_empg_crd_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["crd"]) == OK
    assert yaml.safe_load(capsys.readouterr().out) == definition()


def test_the_schema_is_structural() -> None:
    """One type and no unions, references or keys that the API server would refuse or drop."""
    for path, schema in parts():
        assert set(schema) <= ALLOWED[schema.get("type")], path
        assert schema.get("type") or schema.get("x-kubernetes-int-or-string"), path


def test_everything_is_bounded() -> None:
    """CEL's cost is estimated from the bounds: one text without makes a rule that reads it too expensive."""
    for path, schema in parts():
        kind = schema.get("type")
        if kind == "string":
            assert "enum" in schema or "maxLength" in schema, path
        elif kind == "array":
            assert "maxItems" in schema, path
        elif kind == "object":
            assert schema.get("properties") or schema.get("x-kubernetes-preserve-unknown-fields"), path
        elif path.startswith("spec") and kind in ("integer", "number") and not path.endswith("[]"):
            assert "enum" in schema or {"minimum", "maximum"} <= set(schema), path


def test_every_bound_is_one_that_a_default_keeps() -> None:
    for path, schema in parts():
        default = schema.get("default")
        if schema.get("type") in ("integer", "number") and default is not None:
            low, high = schema.get("minimum", default), schema.get("maximum", default)
            assert low <= default <= high, path
            assert not (schema.get("exclusiveMinimum") and default == low), path
        if "enum" in schema and default is not None:
            assert default in schema["enum"], path


def test_optional_sections_default_so_that_their_keys_do() -> None:
    for path, schema in nodes(root()["properties"]["spec"], "spec"):
        for key, below in schema.get("properties", {}).items():
            section = "properties" in below and f"{path}.{key}" != "spec.model.fromRun"
            if section and key not in schema.get("required", []):
                assert below["default"] == {}, f"{path}.{key}"
            if key in schema.get("required", []):
                assert "default" not in below, f"{path}.{key}"


def test_a_status_gets_no_defaults() -> None:
    assert [path for path, schema in parts() if path.startswith("status") and "default" in schema] == []


def test_null_is_taken_where_the_models_take_it_but_in_enumerations() -> None:
    """The API server finds null in no enumeration; it drops one that is not nullable when a run is created."""
    described = {path.removeprefix("spec"): schema for path, schema in nodes(root()["properties"]["spec"], "spec")}
    optional = {path for path, info in infos(RunSpec) if type(None) in get_args(info.annotation)}
    assert len(optional) > 40
    enumerations = {path for path, schema in described.items() if "enum" in schema}
    assert {path for path, schema in described.items() if schema.get("nullable")} == optional - enumerations


def test_lists_say_how_they_are_merged() -> None:
    kinds = {path: schema["x-kubernetes-list-type"] for path, schema in parts() if schema.get("type") == "array"}
    assert {path for path, kind in kinds.items() if kind == "map"} == {"status.conditions"}
    assert set(kinds.values()) == {"map", "atomic"}
    conditions = root()["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    assert "type" in conditions["items"]["required"]


def test_every_field_of_the_spec_says_what_it_is_and_what_an_edit_does() -> None:
    described = {path.removeprefix("spec"): schema for path, schema in nodes(root()["properties"]["spec"], "spec")}
    fields = leaves()
    assert len(fields) > 120
    for path, change in fields.items():
        text = described[path]["description"]
        assert text.endswith("Immutable.") == (change == "immutable"), path
        assert len(text.split()) > 3, path


def refused_changes(schema: Schema, path: str) -> Iterator[str]:
    """Fields that a rule compares with their old value."""
    for place, node in nodes(schema, path):
        for rule in node.get("x-kubernetes-validations", []):
            if "oldSelf" in rule["rule"]:
                assert rule["message"].startswith(f"{place}{rule['fieldPath']}".removeprefix("spec."))
                yield f"{place}{rule['fieldPath']}".removeprefix("spec")


def test_every_immutable_field_has_a_rule_and_no_other_has() -> None:
    immutable = {path for path, change in leaves().items() if change == "immutable"}
    assert len(immutable) > 25
    assert sorted(refused_changes(root()["properties"]["spec"], "spec")) == sorted({*immutable, ".storage.size"})


def test_no_rule_stands_where_its_default_would_break_it() -> None:
    """The API server tries rules on the default of their object, without the defaults of its keys."""
    for path, schema in nodes(root()["properties"]["spec"], "spec"):
        assert not ("default" in schema and "x-kubernetes-validations" in schema), path


def test_every_rule_of_the_models_is_there_with_its_message() -> None:
    def stated(model: type[Spec]) -> list[str]:
        below = [section_model(info.annotation) for info in model.model_fields.values()]
        own = [rule.static_message for rule in model.rules]
        return own + [message for section in below if section is not None for message in stated(section)]

    rules = [
        rule["message"]
        for _, schema in nodes(root()["properties"]["spec"], "spec")
        for rule in schema.get("x-kubernetes-validations", [])
        if "oldSelf" not in rule["rule"]
    ]
    assert sorted(rules) == sorted(stated(RunSpec))
    assert len(rules) > 40
    assert all("{" not in message and "  " not in message for message in rules)
