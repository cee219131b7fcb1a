"""Rules in CEL: the demands of the models on several fields, and what may change in a run that exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from empg.api.base import Spec, section_model
from empg.api.rule import Rule
from empg.api.storage import StorageSpec

Path = tuple[str, ...]


@dataclass(frozen=True)
class Validation:
    """One entry of `x-kubernetes-validations`."""

    cel: str
    message: str
    field: str
    """Path below the object that has the entry; refusals point there."""
    reason: Literal["FieldValueInvalid", "FieldValueForbidden"] = "FieldValueInvalid"

    @classmethod
    def of(cls, rule: Rule) -> Validation:
        return cls(rule.cel, rule.static_message, rule.field)

    def moved_up(self, key: str) -> Validation:
        """The same, for the object that has this one under `key`."""
        cel = re.sub(r"\b(self|oldSelf)\b", rf"\1.{key}", self.cel)
        return replace(self, cel=cel, field=f"{key}.{self.field}")

    def entry(self) -> dict[str, str]:
        return {"rule": self.cel, "message": self.message, "fieldPath": f".{self.field}", "reason": self.reason}


_TRANSITIONS: dict[type[BaseModel], tuple[Validation, ...]] = {
    StorageSpec: (
        Validation(
            "quantity(self.size).compareTo(quantity(oldSelf.size)) >= 0",
            "storage.size can only grow, as a claim can; make a new run for a smaller one",
            "size",
        ),
    ),
}
"""What may become of fields that are not immutable."""


def validations(model: type[Spec]) -> dict[Path, list[Validation]]:
    """The entries of each object below a model, by its path.

    The API server tries the rules of an object on the object's default too, which for a section is `{}` without the
    defaults of its keys. So the rules of such a section stand at the object around it.
    """
    return _collect(model, (), frozen=False)


def _collect(model: type[Spec], place: Path, frozen: bool) -> dict[Path, list[Validation]]:
    """`place`: where the model is in the spec. `frozen`: whether something around it is immutable as a whole."""
    own = [Validation.of(rule) for rule in model.rules]
    own += _TRANSITIONS.get(model, ())
    found: dict[Path, list[Validation]] = {(): own}
    for key, info in _keys(model):
        immutable = not frozen and _change(info) == "immutable"
        if immutable:
            own.append(_immutability(key, (*place, key), info))
        below = section_model(info.annotation)
        if below is None:
            continue
        for path, entries in _collect(below, (*place, key), frozen or immutable).items():
            if path == () and info.default_factory is not None:
                own += [entry.moved_up(key) for entry in entries]
            else:
                found[key, *path] = entries
    return {path: entries for path, entries in found.items() if entries}


def _immutability(key: str, place: Path, info: FieldInfo) -> Validation:
    """Stands at the parent of the field: only there does it see that a field comes or goes."""
    optional = not info.is_required() and info.default is None
    same = f"self.{key} == oldSelf.{key}"
    path = ".".join(place)
    return Validation(
        f"has(self.{key}) == has(oldSelf.{key}) && (!has(self.{key}) || {same})" if optional else same,
        f"{path} is immutable; make a new run for another value (model.fromRun lets it start from this run's policy)",
        key,
        "FieldValueForbidden",
    )


def _keys(model: type[Spec]) -> Iterator[tuple[str, FieldInfo]]:
    for name, info in model.model_fields.items():
        yield str(info.alias or name), info


def _change(info: FieldInfo) -> object:
    return info.json_schema_extra.get("x-empg-change") if isinstance(info.json_schema_extra, dict) else None
