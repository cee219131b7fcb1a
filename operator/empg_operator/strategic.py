"""Kubernetes' strategic merge patch, for pod templates: `kubectl patch --type strategic` without a cluster."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "volumes": "name",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "schedulingGates": "name",
    "resourceClaims": "name",
    "env": "name",
    "ports": "containerPort",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ownerReferences": "uid",
}
"""Lists of a pod template whose items are merged, and what identifies an item. Other lists are replaced."""

MERGED_SETS = frozenset({"finalizers"})
"""Lists of texts that are united."""

_PATCH = "$patch"
_RETAIN = "$retainKeys"
_DELETE = "$deleteFromPrimitiveList/"
_ORDER = "$setElementOrder/"

JsonObject = dict[str, Any]


def merge(base: Mapping[str, Any], patch: Mapping[str, Any], path: str) -> JsonObject:
    """`base` with `patch` merged over it; neither is changed.

    Directives: `$patch: replace` and `$patch: delete` for objects and list items, `$retainKeys`,
    `$deleteFromPrimitiveList/…`; a null deletes. `$setElementOrder/…` is passed over.

    Args:
        base: the pod template, JSON data.
        patch: what to change.
        path: where the patch stands, for errors.

    ValueError names the field of the patch that can't be used, and the remedy.
    """
    return _merge_objects(copy.deepcopy(dict(base)), copy.deepcopy(dict(patch)), path)


def _merge_objects(base: JsonObject, patch: JsonObject, path: str) -> JsonObject:
    directive = patch.pop(_PATCH, None)
    if directive == "replace":
        return _plain(patch, path)
    if directive == "delete":
        return {}
    if directive is not None:
        raise ValueError(f"{path}.{_PATCH}: {directive!r} is not known here; use replace or delete, or remove it")
    _retain(base, patch, path)
    for key, value in patch.items():
        if key.startswith(_ORDER):
            continue
        if key.startswith(_DELETE):
            _delete_from(base, key.removeprefix(_DELETE), value, f"{path}.{key}")
        elif value is None:
            base.pop(key, None)
        else:
            base[key] = _merge_values(base.get(key), value, key, f"{path}.{key}")
    return base


def _merge_values(base: Any, value: Any, key: str, path: str) -> Any:
    if isinstance(base, dict | list) and type(base) is not type(value):
        raise ValueError(f"{path} must be {_kind(base)}, not {_kind(value)}; correct it or remove it")
    # Not every `env` is a list of variables: labels are called so too.
    if key in MERGE_KEYS and isinstance(value, list):
        return _merge_items(base or [], _items(value, MERGE_KEYS[key], path), MERGE_KEYS[key], path)
    if key in MERGED_SETS and isinstance(base, list):
        return _ordered(base, list(dict.fromkeys(map(str, value))))
    if isinstance(base, dict):
        return _merge_objects(base, value, path)
    return _plain(value, path)


def _items(value: list[Any], key: str, path: str) -> list[JsonObject]:
    for index, item in enumerate(value):
        if not isinstance(item, dict):
            raise ValueError(f"{path}[{index}] must be an object, not {_kind(item)}; correct it or remove it")
        directive = item.get(_PATCH)
        if directive not in (None, "replace", "delete"):
            raise ValueError(f"{path}[{index}].{_PATCH}: {directive!r} is not known here; use replace or delete")
        if item.get(key) is None and directive != "replace":
            raise ValueError(f"{path}[{index}] has no {key}, by which it would be merged; add it")
        if isinstance(item.get(key), dict | list):
            raise ValueError(f"{path}[{index}].{key} must be one value, not {_kind(item[key])}; correct it")
    return value


def _merge_items(base: list[JsonObject], patch: list[JsonObject], key: str, path: str) -> list[JsonObject]:
    replaces = any(item.get(_PATCH) == "replace" for item in patch)
    deleted = [item[key] for item in patch if item.get(_PATCH) == "delete"]
    changes = [item for item in patch if item.get(_PATCH) is None]
    present = [] if replaces else [item for item in base if item.get(key) not in deleted]
    order = [item[key] for item in present]
    merged: dict[Any, JsonObject] = {item[key]: item for item in present}
    for change in changes:
        merged[change[key]] = _merge_objects(merged.get(change[key], {}), change, f"{path}[{change[key]}]")
    return [merged[value] for value in _ordered(order, list(dict.fromkeys(change[key] for change in changes)))]


def _ordered(base: list[Any], patch: list[Any]) -> list[Any]:
    """Keys in kubectl's order: those of the patch in its order, the others in theirs; an untouched item stands before a
    patched one only where it did so before."""
    place = {value: index for index, value in enumerate(base)}
    patched, untouched = list(patch), [value for value in base if value not in patch]
    ordered: list[Any] = []
    while patched and untouched:
        after = patched[0] in place and place[patched[0]] > place[untouched[0]]
        ordered.append(untouched.pop(0) if after else patched.pop(0))
    return [*ordered, *patched, *untouched]


def _retain(base: JsonObject, patch: JsonObject, path: str) -> None:
    kept = patch.pop(_RETAIN, None)
    if kept is None:
        return
    if not isinstance(kept, list):
        raise ValueError(f"{path}.{_RETAIN} must be a list of field names, not {_kind(kept)}; correct it")
    missing = [key for key, value in patch.items() if value is not None and not key.startswith("$") and key not in kept]
    if missing:
        raise ValueError(f"{path}.{_RETAIN} must name {', '.join(missing)} too, which the patch sets; add it")
    for key in [key for key in base if key not in kept]:
        del base[key]


def _delete_from(base: JsonObject, key: str, values: Any, path: str) -> None:
    if not isinstance(values, list):
        raise ValueError(f"{path} must be a list, not {_kind(values)}; correct it or remove it")
    if isinstance(base.get(key), list):
        base[key] = [item for item in base[key] if item not in values]


def _plain(value: Any, path: str) -> Any:
    """A value of the patch that meets nothing in the base: without nulls and directives."""
    if isinstance(value, dict):
        return _merge_objects({}, value, path)
    if isinstance(value, list):
        return [
            _plain(item, f"{path}[{index}]") if isinstance(item, dict) else item for index, item in enumerate(value)
        ]
    return value


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    return "null" if value is None else f"the value {value!r}"
