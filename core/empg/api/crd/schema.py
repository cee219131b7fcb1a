"""Models to structural OpenAPI v3 schemas, the subset of JSON Schema that the API server takes for custom resources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]

_COPIED = ("type", "format", "enum", "minimum", "maximum", "minLength", "maxLength", "pattern", "minItems", "maxItems")
_EDITS = {
    "immutable": "Immutable.",
    "live": "Edits are taken at the next iteration that is not planned yet.",
    "next-attempt": "Edits are taken when the learner starts again.",
    "rolls-samplers": "Edits replace the sampler pods.",
}


def structural(model: type[BaseModel], *, defaults: bool) -> Schema:
    """The schema of a model, without references, unions and null types.

    With `defaults`, absent keys get their defaults from the API server; a section that has defaults for all its keys
    defaults to `{}`, which lets these apply. To CEL a null is as good as absent: `has()` is false for both. An
    enumeration is never nullable, as the API server finds null in none: it drops a null when a run is created or
    replaced, and refuses to apply it on the server's side.
    """
    document = model.model_json_schema(by_alias=True)
    return _Converter(document.get("$defs", {}), defaults).convert(document)


@dataclass(frozen=True)
class _Converter:
    """Converts parts of one document of JSON Schema."""

    definitions: Mapping[str, Schema]
    defaults: bool

    def convert(self, source: Schema) -> Schema:
        """The structural form of a schema as pydantic generates it."""
        source = self._without_null(self._resolved(source))
        schema: Schema = {}
        if "description" in source:
            schema["description"] = _described(source)
        schema |= {key: source[key] for key in _COPIED if key in source}
        schema |= {key: value for key, value in source.items() if key.startswith("x-kubernetes-")}
        for bound in ("Minimum", "Maximum"):
            if f"exclusive{bound}" in source:
                schema |= {bound.lower(): source[f"exclusive{bound}"], f"exclusive{bound}": True}
        if self.defaults and source.get("default") is not None:
            schema["default"] = source["default"]
        if source.get("nullable") and "enum" not in source:
            schema["nullable"] = True
        if source.get("type") == "array":
            schema["items"] = self.convert(source["items"])
            schema.setdefault("x-kubernetes-list-type", "atomic")
        elif source.get("type") == "object":
            schema |= self._object(source)
        return schema

    def _object(self, source: Schema) -> Schema:
        if source.get("additionalProperties") is True:
            limit = {"maxProperties": source["maxProperties"]} if "maxProperties" in source else {}
            return {**limit, "x-kubernetes-preserve-unknown-fields": True}
        required = source.get("required", [])
        properties: dict[str, Schema] = {}
        for key, value in source["properties"].items():
            properties[key] = self.convert(value)
            if self.defaults and "$ref" in value and key not in required:
                properties[key]["default"] = {}
        return {**({"required": required} if required else {}), "properties": properties}

    def _resolved(self, source: Schema) -> Schema:
        """A reference replaced by what it stands for; what is said beside it has precedence."""
        if "$ref" not in source:
            return source
        beside = {key: value for key, value in source.items() if key != "$ref"}
        return {**self.definitions[source["$ref"].removeprefix("#/$defs/")], **beside}

    def _without_null(self, source: Schema) -> Schema:
        """An alternative to null replaced by the other alternative, and said to be nullable."""
        if "anyOf" not in source:
            return source
        (other,) = (option for option in source["anyOf"] if option != {"type": "null"})
        beside = {key: value for key, value in source.items() if key != "anyOf"}
        return {**self._resolved(other), **beside, "nullable": True}


def _described(source: Schema) -> str:
    """The description on one line, with what an edit does."""
    text = " ".join(source["description"].split())
    return f"{text} {_EDITS[source['x-empg-change']]}" if "x-empg-change" in source else text
