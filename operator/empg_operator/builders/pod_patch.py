"""What a user's `podTemplate` must leave as it is, so that the rest can be built upon it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from empg_operator import names


def check(merged: Mapping[str, Any], patch: Mapping[str, Any], role: names.Role, path: str) -> None:
    """Whether a template that `patch` was merged over still has our container and the shape of a template.

    The API server says what is wrong inside; but what a template does not have at all, and what we read ourselves, it
    never sees.

    ValueError names the field and the remedy.
    """
    _only(patch, ("metadata", "spec"), path)
    metadata, spec = _object(merged, "metadata", path), _object(merged, "spec", path)
    _only(metadata, ("labels", "annotations"), f"{path}.metadata")
    for field in ("labels", "annotations"):
        _object(metadata, field, f"{path}.metadata")
    _list(spec, "volumes", f"{path}.spec")
    ours = [item for item in _list(spec, "containers", f"{path}.spec") if item["name"] == role]
    if not ours:
        raise ValueError(f"{path} removes the container {role!r}, which the run needs; keep it and change its fields")
    within = f"{path}.spec.containers[{role}]"
    for field in ("args", "env", "volumeMounts"):
        _list(ours[0], field, within)
    _object(_object(ours[0], "resources", within), "limits", f"{within}.resources")


def _only(part: Mapping[str, Any], known: tuple[str, str], path: str) -> None:
    for key in part:
        if key not in known and not key.startswith("$"):
            raise ValueError(
                f"{path}.{key} is unknown; move it below {path}.{known[0]} or {path}.{known[1]}, or remove it"
            )


def _object(parent: Mapping[str, Any], field: str, path: str) -> dict[str, Any]:
    found = parent.get(field, {})
    if not isinstance(found, dict):
        raise ValueError(f"{path}.{field} must be an object; correct it or remove it")
    return found


def _list(parent: Mapping[str, Any], field: str, path: str) -> list[Any]:
    found = parent.get(field, [])
    if not isinstance(found, list):
        raise ValueError(f"{path}.{field} must be a list; correct it or remove it")
    return found
