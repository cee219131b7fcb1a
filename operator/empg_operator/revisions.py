"""Frozen pod templates: an operator that is upgraded builds other pods for new runs and leaves those of old ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from empg.api.base import Change, Spec
from empg.api.run import EMPGRun
from empg_operator import names
from empg_operator.builders.metadata import metadata
from empg_operator.decision import Manifest

_CHANGES: dict[names.Role, Change] = {"sampler": "rolls-samplers", "learner": "next-attempt"}


def template_digest(run: EMPGRun, role: names.Role) -> str:
    """SHA-256 of what the spec says of the role's pods: an edit of it is to replace them.

    Neither settings nor live fields are in it, and no field at its default: a field that a newer version adds changes
    no digest. Immutable fields need not be in it.
    """
    text = json.dumps(_given(run.spec, _CHANGES[role]), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def controller_revision(
    run: EMPGRun, role: names.Role, digest: str, template: Mapping[str, Any], number: int
) -> dict[str, Any]:
    """The object that keeps a pod template; its data can't be changed once it exists.

    `number` orders the revisions of a role.
    """
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": metadata(run, names.revision(run.metadata.name, role, digest), role),
        "data": {"template": dict(template)},
        "revision": number,
    }


def frozen_template(
    children: Mapping[tuple[str, str], Manifest], run: EMPGRun, role: names.Role, digest: str
) -> dict[str, Any] | None:
    """The template that was frozen for a digest; None if there is none yet."""
    kept = children.get(("ControllerRevision", names.revision(run.metadata.name, role, digest)))
    return None if kept is None else dict(kept["data"]["template"])


def _given(part: Spec, change: Change) -> dict[str, Any]:
    """Fields of one class that are not at their default, as nested JSON data with the keys of a manifest."""
    given: dict[str, Any] = {}
    for name, info in type(part).model_fields.items():
        value = getattr(part, name)
        extra = info.json_schema_extra
        key = str(info.alias or name)
        if isinstance(extra, dict) and extra.get("x-empg-change") == change:
            if value != info.get_default(call_default_factory=True):
                given[key] = value.model_dump(mode="json", by_alias=True) if isinstance(value, Spec) else value
        elif isinstance(value, Spec) and (below := _given(value, change)):
            given[key] = below
    return given
