"""Specs for property tests: valid ones and ones that are nearly so, drawn from the models' JSON Schema."""

from __future__ import annotations

import copy
import math
from typing import Any

from hypothesis import strategies as st
from run_documents import run

from empg.api.run import RunSpec

Schema = dict[str, Any]
Path = tuple[str | int, ...]
DOCUMENT = RunSpec.model_json_schema(by_alias=True)
LEFT_OUT = {"podTemplate"}
"""Free-form objects that the operator checks, not the definition."""

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | TEXTS,
    lambda below: st.lists(below, max_size=2) | st.dictionaries(TEXTS, below, max_size=2),
    max_leaves=4,
)
NUMBERS = [0, 1, -1, 3, 2.0, 0.5, -0.0, 1e300, -1e300, 10**19, 10**30, 2**31, 2**63]
STRINGS = ["", "x", "0", "1.5", "true", "null", "empg", "é", "日本", "\U0001f600", "a\n", " ", "\x00", "a" * 300]
CONTAINERS = [[], [0], [None], ["x"], [[]], {}, {"name": "x"}, {"a": None}]
ODD_VALUES = st.sampled_from([None, True, False, *NUMBERS, *STRINGS, *CONTAINERS]).map(copy.deepcopy)
VALID_TEXTS = {
    "sampler.maxUnavailable": st.integers(1, 10) | st.sampled_from(["1%", "25%", "100%"]),
    "sampler.maxSurge": st.integers(0, 10) | st.sampled_from(["0%", "10%"]),
}
TASKS = [
    {"name": "arithmetic"},
    {"name": "arithmetic", "levels": [1, 4]},
    {"name": "gsm8k"},
    {"name": "math", "levels": [5]},
    {"name": "dataset", "source": "rows.jsonl", "grader": {"name": "numeric"}},
    {"name": "gsm8k", "grader": {"name": "function", "function": "a.b:c"}},
    {"name": "gsm8k", "chat": True, "system": "Think."},
]
MODELS = [
    {"name": "Qwen/Qwen2.5-1.5B"},
    {"name": "base", "revision": "v1"},
    {"fromRun": {"name": "first", "policy": 3}},
]

SECTIONS = [*sorted(DOCUMENT["properties"]), "objective", "objective", "objective", "sampler", "em", "learner", "task"]
"""What is drawn from; sections with more rules come more often."""


def resolved(schema: Schema) -> Schema:
    """A schema without reference and without null beside it."""
    if "$ref" in schema:
        return DOCUMENT["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    for option in schema.get("anyOf", []):
        if option != {"type": "null"}:
            return resolved(option)
    return schema


def values(schema: Schema, place: str) -> st.SearchStrategy[Any]:
    """Values of one field that are valid by themselves, often at its bounds."""
    schema = resolved(schema)
    if place in VALID_TEXTS:
        return VALID_TEXTS[place]
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    match schema["type"]:
        case "boolean":
            return st.booleans()
        case "integer":
            low, high = schema.get("minimum", 1), schema.get("maximum", 4)
            return st.sampled_from([low, high]) | st.integers(low, min(high, low + 64))
        case "number":
            low, high = schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum", 0.5)
            inside = st.floats(low, high, exclude_min="exclusiveMinimum" in schema)
            return inside | st.sampled_from([high, (low + high) / 2])
        case "string" if "pattern" in schema:
            return st.from_regex(schema["pattern"], fullmatch=True, alphabet="abz09.-_/:%GMTi").filter(
                lambda text: len(text) <= schema.get("maxLength", math.inf)
            )
        case "string":
            return st.text(
                st.characters(exclude_categories=["Cs"]), min_size=schema.get("minLength", 0), max_size=12
            ) | st.just("x" * schema["maxLength"])
        case "array":
            return st.lists(values(schema["items"], f"{place}[]"), max_size=min(schema["maxItems"], 3), unique=True)
        case _:
            return st.dictionaries(TEXTS, JSON_VALUES, max_size=3)


def sections(schema: Schema, place: str, most: int) -> st.SearchStrategy[Schema]:
    """A section with some of its fields."""
    fields: dict[str, st.SearchStrategy[Any]] = {}
    for key, below in resolved(schema)["properties"].items():
        path = f"{place}.{key}" if place else key
        if key in LEFT_OUT:
            continue
        if "properties" in resolved(below):
            fields[key] = sections(below, path, most=2)
        else:
            fields[key] = values(below, path)
    return st.lists(st.sampled_from(sorted(fields)), max_size=most, unique=True).flatmap(
        lambda keys: st.fixed_dictionaries({key: fields[key] for key in keys})
    )


@st.composite
def near_specs(draw: st.DrawFn) -> Schema:
    """A run whose spec is valid field by field, with up to two things wrong."""
    document = run("drawn")
    spec = document["spec"]
    spec["model"], spec["task"] = (copy.deepcopy(draw(st.sampled_from(choice))) for choice in (MODELS, TASKS))
    for name in draw(st.lists(st.sampled_from(SECTIONS), max_size=4, unique=True)):
        schema = resolved(DOCUMENT["properties"][name])
        if "properties" not in schema:
            spec[name] = draw(values(schema, name))
        elif name == "task":
            spec[name] |= draw(sections({"properties": {"grader": schema["properties"]["grader"]}}, name, most=1))
        elif name != "model":
            spec[name] = spec.get(name, {}) | draw(sections(schema, name, most=3))
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2]))):
        mutate(draw, spec)
    return document


def mutate(draw: st.DrawFn, spec: Schema) -> None:
    """Make one thing wrong, or odd."""
    place = draw(st.sampled_from(places(spec, DOCUMENT)))
    holder: Any = spec
    for part in place[:-1]:
        holder = holder[part]
    key = place[-1]
    kind = draw(st.sampled_from(["odd", "odd", "bound", "null", "missing", "unknown"]))
    schema = schema_at(place)
    if kind == "bound" and schema is not None and {"minimum", "exclusiveMinimum", "maximum"} & set(schema):
        low, high = schema.get("minimum", schema.get("exclusiveMinimum", 0)), schema.get("maximum", 10)
        step = 1 if schema["type"] == "integer" else 1e-9
        holder[key] = draw(st.sampled_from([low - step, low, low + step, high - step, high, high + step]))
    elif kind == "bound" and schema is not None and "maxLength" in schema:
        holder[key] = draw(st.sampled_from(["a", "é", "\U0001f600"])) * (schema["maxLength"] + draw(st.integers(0, 1)))
    elif kind == "null":
        holder[key] = None
    elif kind == "missing" and isinstance(holder, dict):
        holder.pop(key, None)
    elif kind == "unknown" and isinstance(holder, dict):
        holder[draw(st.sampled_from(["nam", "Name", "max_tokens", "", "é", "name", "seed"]))] = draw(ODD_VALUES)
    else:
        holder[key] = draw(ODD_VALUES)


def places(value: Any, schema: Schema | None, path: Path = ()) -> list[Path]:
    """What can be changed: every key that the spec has or might have, and every item of a list."""
    found: list[Path] = [path] if path else []
    known = resolved(schema).get("properties", {}) if schema is not None else {}
    if isinstance(value, dict):
        for key in sorted({*value, *known} - LEFT_OUT):
            if key in value:
                found += places(value[key], known.get(key), (*path, key))
            else:
                found.append((*path, key))
    elif isinstance(value, list):
        found += [(*path, index) for index in range(len(value))]
    return found


def schema_at(place: Path) -> Schema | None:
    """The schema of a place, if it has one."""
    schema: Schema = DOCUMENT
    for part in place:
        below = schema.get("items") if isinstance(part, int) else schema.get("properties", {}).get(part)
        if below is None:
            return None
        schema = resolved(below)
    return schema
