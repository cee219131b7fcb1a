"""The manifest reference in Markdown, generated from the models: `python -m empg.api.reference > docs/manifest.md`."""

from __future__ import annotations

import json
import types
import typing
from typing import Any

from pydantic.fields import FieldInfo

from empg.api.base import Spec, section_model
from empg.api.run import RunSpec

INTRODUCTION = """\
# Manifest reference

Every key of `spec` in an `EMPGRun` (`empg.dev/v1alpha1`). Generated from the models in `core/empg/api`; do not edit.

The column *edit* says what a change does to a run that exists: **immutable** is refused; **live** is taken at the next
iteration that is not planned yet; **next-attempt** when the learner starts again; **rolls-samplers** when samplers do.
"""


def reference() -> str:
    """The whole page."""
    return "\n".join([INTRODUCTION, *_section("spec", RunSpec)])


def _section(path: str, model: Any) -> list[str]:
    rows: list[str] = []
    nested: list[str] = []
    for name, info in model.model_fields.items():
        key, below = str(info.alias or name), section_model(info.annotation)
        below_path = key if model is RunSpec else f"{path}.{key}"
        if below is not None and not (info.json_schema_extra or {}):
            nested += _section(below_path, below)
            continue
        extra = info.json_schema_extra
        change = extra["x-empg-change"] if isinstance(extra, dict) else ""
        rows.append(f"| `{key}` | {_type(info)} | {_default(info)} | {change} | {_one_line(info.description)} |")
        if below is not None:
            nested += _section(below_path, below)
    table = ["| key | type | default | edit | meaning |", "|---|---|---|---|---|", *rows, ""] if rows else []
    return [f"## {path}\n", f"{_one_line(model.__doc__)}\n", *table, *nested]


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split()).replace("|", "\\|")


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    return "" if info.default is None else f"`{json.dumps(info.default)}`"


def _type(info: FieldInfo) -> str:
    bounds = [
        sign + format(value, "g")
        for sign, name in (("≥ ", "ge"), ("> ", "gt"), ("≤ ", "le"), ("< ", "lt"))
        for value in [next((getattr(m, name) for m in info.metadata if hasattr(m, name)), None)]
        if value is not None
    ]
    return ", ".join([_type_name(info.annotation), *bounds])


def _type_name(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type_name(arguments[0])
    if origin is typing.Literal:
        return " \\| ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type_name(argument) for argument in arguments if argument is not type(None))
    if origin is tuple:
        return f"list of {_type_name(arguments[0])}"
    if origin is dict or annotation is dict:
        return "object"
    if isinstance(annotation, type) and issubclass(annotation, Spec):
        return "object"
    return {"int": "integer", "float": "number", "str": "text", "bool": "boolean"}.get(
        annotation.__name__, annotation.__name__
    )


if __name__ == "__main__":
    print(reference(), end="")
