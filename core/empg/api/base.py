"""What every model of the API shares: frozen values, camelCase keys, and a declared reaction to edits."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Change = Literal["immutable", "live", "next-attempt", "rolls-samplers"]
"""What an edit of a field does to a run that exists:

``immutable`` is refused, ``live`` is picked up at the next unplanned iteration, ``next-attempt`` when the learner
starts again, ``rolls-samplers`` when sampler pods are replaced.
"""


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


def field(default: Any = ..., *, change: Change, **bounds: Any) -> Any:
    """A pydantic ``Field`` that says what an edit of it does; ``bounds`` are pydantic's own (``ge``, …)."""
    return Field(default, json_schema_extra={"x-empg-change": change}, **bounds)


def section(kind: type[Spec]) -> Any:
    """A nested section that defaults to all its own defaults."""
    return Field(default_factory=kind)
