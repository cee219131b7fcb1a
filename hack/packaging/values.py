"""The chart's values: from `values.yaml` and its comments to a JSON schema and a table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

_ANNOTATION = "@schema "
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}


@dataclass(frozen=True)
class Value:
    """One key of `values.yaml`."""

    key: str
    default: Any
    description: str
    annotation: dict[str, Any]
    """JSON schema that its comment gives."""
    values: tuple[Value, ...]
    """Keys below. A mapping whose annotation speaks of `additionalProperties` is free in its keys and has none."""


def read_values(text: str) -> tuple[Value, ...]:
    """The top-level values.

    Raises:
        ValueError: a key has no description, or an annotation is no JSON; the message names the key.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    return _read(root, text.splitlines(), yaml.safe_load(text), "")


def schema(values: tuple[Value, ...]) -> dict[str, Any]:
    """JSON schema that refuses every unknown key and every value of another type."""
    made = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart empg",
        **_section(values),
    }
    # Helm adds this key where the chart is a dependency of another.
    made["properties"]["global"] = {"type": "object", "description": "Values that all charts of a release share."}
    return made


def table(values: tuple[Value, ...]) -> str:
    """Markdown table of all keys with their defaults."""
    lines = ["| value | default | what |", "|---|---|---|"]
    for path, value in leaves(values):
        default = json.dumps(value.default)
        description = " ".join(value.description.split()).replace("|", "\\|")
        lines.append(f"| `{path}` | `{default}` | {description} |")
    return "\n".join(lines) + "\n"


def leaves(values: tuple[Value, ...], prefix: str = "") -> Iterator[tuple[str, Value]]:
    """Dotted path and value of all that can be set."""
    for value in values:
        path = f"{prefix}{value.key}"
        if value.values:
            yield from leaves(value.values, f"{path}.")
        else:
            yield path, value


def _read(node: yaml.MappingNode, lines: list[str], defaults: dict[str, Any], path: str) -> tuple[Value, ...]:
    values = []
    for key_node, value_node in node.value:
        key = key_node.value
        description, annotation = _comment(lines, key_node.start_mark, f"{path}{key}")
        is_section = isinstance(value_node, yaml.MappingNode) and value_node.value
        below = (
            _read(value_node, lines, defaults[key], f"{path}{key}.")
            if is_section and "additionalProperties" not in annotation
            else ()
        )
        values.append(Value(key, defaults[key], description, annotation, below))
    return tuple(values)


def _comment(lines: list[str], mark: yaml.Mark, path: str) -> tuple[str, dict[str, Any]]:
    start = mark.line
    while start > 0 and lines[start - 1].startswith(" " * mark.column + "#"):
        start -= 1
    comment = [line.strip().removeprefix("#").strip() for line in lines[start : mark.line]]
    description = " ".join(line for line in comment if not line.startswith(_ANNOTATION))
    if not description:
        raise ValueError(f"values.yaml: {path} has no comment; say above it what it does")
    annotation: dict[str, Any] = {}
    for line in comment:
        if line.startswith(_ANNOTATION):
            try:
                annotation |= json.loads(line.removeprefix(_ANNOTATION))
            except json.JSONDecodeError as error:
                raise ValueError(f"values.yaml: the annotation of {path} is not valid JSON: {error}") from error
    return description, annotation


def _section(values: tuple[Value, ...]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {value.key: _property(value) for value in values},
    }


def _property(value: Value) -> dict[str, Any]:
    implied = _section(value.values) if value.values else {"type": _TYPES[type(value.default)]}
    return {"description": value.description, **implied, **value.annotation, "default": value.default}
