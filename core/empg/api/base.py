"""What every model of the API shares: frozen values, camelCase keys, and a declared reaction to edits."""

from __future__ import annotations

import typing
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic.alias_generators import to_camel

from empg.api.rule import Rule

Change = Literal["immutable", "live", "next-attempt", "rolls-samplers"]
"""What an edit of a field does to a run that exists:

`immutable` is refused, `live` is picked up at the next unplanned iteration, `next-attempt` when the learner
starts again, `rolls-samplers` when sampler pods are replaced.
"""


RUN_NAME = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
"""Names of runs: Services are named after them."""
RUN_NAME_LENGTH = 46
"""Leaves 17 of 63 characters for what pods of a learner add to it: `-learner-<attempt>-<index>`."""
LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
"""Names of most objects of Kubernetes."""
EXTENDED_RESOURCE = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
"""`domain/name`, or empty."""

DeviceIndex = Annotated[int, Field(ge=0, le=1023)]

IntOrPercent = Annotated[int | str, WithJsonSchema({"x-kubernetes-int-or-string": True, "maxLength": 4})]
"""A number, or a percentage like `25%`; a rule says which texts are one."""


class Spec(BaseModel):
    """A frozen section of the API. Keys are camelCase in manifests, snake_case in Python; unknown keys are errors."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_alias=True,
        validate_by_name=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )
    rules: ClassVar[tuple[Rule, ...]] = ()
    """What the section demands of its fields together."""

    @model_validator(mode="after")
    def _rules_hold(self) -> Self:
        for rule in self.rules:
            if not rule.holds(self):
                raise ValueError(rule.refusal(self))
        return self


def field(default: Any = ..., *, change: Change, **bounds: Any) -> Any:
    """A pydantic `Field` that says what an edit of it does; `bounds` are pydantic's own (`ge`, …)."""
    return Field(default, json_schema_extra={"x-empg-change": change}, **bounds)


def section(kind: type[Spec]) -> Any:
    """A nested section that defaults to all its own defaults."""
    return Field(default_factory=kind)


def section_model(annotation: Any) -> type[Spec] | None:
    """The section that an annotation names, alone or beside None."""
    for candidate in (annotation, *typing.get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, Spec):
            return candidate
    return None
